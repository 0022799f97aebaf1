"""Several kinds of adapters in one model, such as shared bottlenecks and each client's own LoRA."""

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

TOGETHER = (BOTTLENECK, "IA3", "LORA")  # each is around those before it
WRAPPED = ".base_layer"  # the part that a layer around another adds to the inner one's name


@dataclass(frozen=True)
class Mixed(Adapter):
    """Several kinds, in the order of TOGETHER, whatever their order in the settings.

    main: the innermost; PEFT finds it in a run's folder. others: around it, in folders inside.
    """

    main: Adapter
    others: tuple[Adapter, ...]

    @classmethod
    def of(cls, kinds: Sequence[Adapter]) -> "Mixed":
        """The combination of these kinds; raises ValueError if they cannot be in one model."""
        for kind in kinds:
            if kind.kind not in TOGETHER:
                raise ValueError(
                    f"adapter: {type(kind).__name__} cannot be combined with others; lora, ia3, "
                    "and houlsby or pfeiffer can."
                )
            if getattr(kind, "target_modules", None) == "all-linear":
                raise ValueError(
                    "adapter: with another adapter, lora cannot have target_modules all-linear; "
                    "name the modules."
                )
        if len({kind.kind for kind in kinds}) < len(kinds):
            raise ValueError("adapter: houlsby and pfeiffer would be in the same layers; use one.")
        main, *others = sorted(kinds, key=lambda kind: TOGETHER.index(kind.kind))
        return cls(main, tuple(others))

    def config(self, model: Any) -> "peft.PeftConfig":
        return self.main.config(model)

    def refusal(self, model: Any, error: Exception) -> str:
        return self.main.refusal(model, error)

    def check(self, model: "peft.PeftModel", name: str) -> None:
        for kind in self.kinds:
            kind.check(model, name)

    @property
    def row_gradients(self) -> bool:
        return all(kind.row_gradients for kind in self.kinds)

    @property
    def kinds(self) -> tuple[Adapter, ...]:
        return (self.main, *self.others)


def kind_of(name: str, kinds: Iterable[str]) -> str:
    """The one of these kinds that a tensor is of; empty for others, such as a head's."""
    return next((kind for kind in kinds if _layer(name, kind)), "")


def split_by_kind(
    tensors: "named.Tensors", kinds: Sequence[str]
) -> "tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]":
    """The tensors of each kind, and those of no kind, such as a head's.

    Names become those in a model that has no other kind. kinds: PEFT's names, innermost first.
    """
    by_kind: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in (*kinds, "")}
    for name, tensor in tensors.items():
        kind = kind_of(name, kinds)
        inner = kind not in (kinds[-1], "")  # the outermost has the layer's own name
        by_kind[kind][name.replace(WRAPPED, "") if inner else name] = tensor
    others = by_kind.pop("")
    return list(by_kind.values()), others


def join_kinds(
    by_kind: "Sequence[Mapping[str, torch.Tensor]]", kinds: Sequence[str]
) -> "dict[str, torch.Tensor]":
    """All tensors, by their names in a model with all kinds: the inverse of `split_by_kind`."""
    layers = [{_layer(n, kind) for n in part} for part, kind in zip(by_kind, kinds, strict=True)]
    joined = {}
    for at, (part, kind) in enumerate(zip(by_kind, kinds, strict=True)):
        for name, tensor in part.items():
            if layer := _layer(name, kind):
                around = sum(layer in others for others in layers[at + 1 :])
                name = layer + WRAPPED * around + name.removeprefix(layer)
            joined[name] = tensor
    return joined


def _layer(name: str, kind: str) -> str:
    """The name of the layer of a tensor of this kind; empty for other kinds."""
    layer, mark, _ = name.partition(f".{mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind]}")  # type: ignore[index]
    return layer if mark else ""
