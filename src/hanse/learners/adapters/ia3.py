"""IA3 (Liu et al. 2022, 2205.05638): activations of frozen layers, scaled by vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from peft import IA3Config
from pydantic import ConfigDict

from hanse.learners.adapter import Adapter
from hanse.learners.targets import Targets, plain, unmatched


@dataclass(frozen=True)
class IA3(Adapter):
    """Keys, values and what enters the second feed-forward layer are multiplied by l, one at first.

    feedforward_modules: those of the target modules whose input is scaled, not their output; both
        are PEFT's choice for the architecture unless they are given.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: ClassVar[str] = "IA3"

    target_modules: Targets = None
    feedforward_modules: Targets = None

    def config(self, model: Any) -> IA3Config:
        return IA3Config(
            target_modules=plain(self.target_modules),
            feedforward_modules=plain(self.feedforward_modules),
        )

    def refused(self, model: Any, error: Exception) -> str:
        return unmatched(model, self.target_modules, error, "this model", "IA3")

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        inner = written.get("feedforward_modules")
        listed = tuple(sorted(inner)) if isinstance(inner, list) else inner
        return super().read({**written, "feedforward_modules": listed})
