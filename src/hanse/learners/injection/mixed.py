"""Several kinds of adapters in one model, such as bottlenecks that travel and LoRA that stays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import BOTTLENECK, Adapter

with lazy_imports():
    import peft
    import torch
    from peft import mapping

    from hanse.tensors import named

TOGETHER = (BOTTLENECK, "IA3", "LORA")  # in this order each is around those before it
WRAPPED = ".base_layer"  # what a layer around another one adds to the inner one's name


@dataclass(frozen=True)
class Mixed(Adapter):
    """`main` is what PEFT finds in a run's folder; the others, in folders inside it, are around it.

    The order is that of TOGETHER, whatever the order in the settings.
    """

    main: Adapter
    others: tuple[Adapter, ...]

    @classmethod
    def of(cls, kinds: Sequence[Adapter]) -> "Mixed":
        """Raises ValueError for kinds that cannot work in the layers of one model."""
        for kind in kinds:
            if kind.kind not in TOGETHER:
                raise ValueError(
                    f"adapter: {type(kind).__name__} works by itself only; those that go together "
                    "are lora, ia3, and houlsby or pfeiffer."
                )
            if getattr(kind, "target_modules", None) == "all-linear":
                raise ValueError(
                    "adapter: beside another adapter, lora cannot have target_modules all-linear; "
                    "name the modules."
                )
        if len({kind.kind for kind in kinds}) < len(kinds):
            raise ValueError("adapter: houlsby and pfeiffer would be in the same places; take one.")
        first, *rest = sorted(kinds, key=lambda kind: TOGETHER.index(kind.kind))
        return cls(first, tuple(rest))

    def config(self, model: Any) -> "peft.PeftConfig":
        return self.main.config(model)

    def refused(self, model: Any, error: Exception) -> str:
        return self.main.refused(model, error)

    def check(self, model: "peft.PeftModel", name: str) -> None:
        for kind in self.kinds:
            kind.check(model, name)

    @property
    def kinds(self) -> tuple[Adapter, ...]:
        return (self.main, *self.others)


def kind_of(name: str, kinds: Iterable[str]) -> str:
    """Which of these kinds a tensor is of; empty if it is of none, such as a head's."""
    return next((kind for kind in kinds if _place(name, kind)), "")


def divided(
    tensors: "named.Tensors", kinds: Sequence[str]
) -> "tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]":
    """Each kind's tensors, by the names that they have in a model without the other kinds; and
    those that are of no kind, such as a head's.

    kinds: PEFT's names of them, innermost first.
    """
    found: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in (*kinds, "")}
    for name, tensor in tensors.items():
        kind = kind_of(name, kinds)
        inner = kind not in (kinds[-1], "")  # the outermost has the layer's own name
        found[kind][name.replace(WRAPPED, "") if inner else name] = tensor
    rest = found.pop("")
    return list(found.values()), rest


def nested(
    divided: "Sequence[Mapping[str, torch.Tensor]]", kinds: Sequence[str]
) -> "dict[str, torch.Tensor]":
    """The inverse: all tensors by the names that they have where one kind is around the other."""
    places = [{_place(n, kind) for n in own} for own, kind in zip(divided, kinds, strict=True)]
    found = {}
    for at, (own, kind) in enumerate(zip(divided, kinds, strict=True)):
        for name, tensor in own.items():
            if place := _place(name, kind):
                around = sum(place in others for others in places[at + 1 :])
                name = place + WRAPPED * around + name.removeprefix(place)
            found[name] = tensor
    return found


def _place(name: str, kind: str) -> str:
    """The layer that a tensor of this kind is in; empty if it is of another kind."""
    place, mark, _ = name.partition(f".{mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind]}")  # type: ignore[index]
    return place if mark else ""
