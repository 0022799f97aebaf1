"""Several kinds of adapters in one model, such as bottlenecks that travel and LoRA that stays."""

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from hanse.learners.adapter import Adapter
from hanse.learners.adapters.lora import Lora
from hanse.learners.tuners.bottleneck import KIND

TOGETHER = ("LORA", "IA3", KIND)


@dataclass(frozen=True)
class Mixed(Adapter):
    """`main` is what PEFT finds in a run's folder; the others work beside it."""

    main: Adapter
    others: tuple[Adapter, ...]

    @classmethod
    def of(cls, kinds: list[Adapter]) -> "Mixed":
        """LoRA comes last: where there is another kind, it is what stays at home.

        Raises ValueError for kinds that cannot work in the layers of one model.
        """
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
        first, *rest = sorted(kinds, key=lambda kind: isinstance(kind, Lora))
        return cls(first, tuple(rest))

    def config(self, model: Any) -> PeftConfig:
        return self.main.config(model)

    def refused(self, model: Any, error: Exception) -> str:
        return self.main.refused(model, error)

    @property
    def kinds(self) -> tuple[Adapter, ...]:
        return (self.main, *self.others)

    @property
    def aside(self) -> tuple[str, ...]:
        """What stands in the names of the others' tensors."""
        return tuple(f".{PEFT_TYPE_TO_PREFIX_MAPPING[other.kind]}" for other in self.others)  # type: ignore[index]
