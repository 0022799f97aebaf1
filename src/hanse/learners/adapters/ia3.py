"""IA3 (Liu et al. 2022, 2205.05638): activations of frozen layers, scaled by vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from peft import IA3Config
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as USUAL_INNER,
)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as USUAL
from pydantic import ConfigDict

from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.target_modules import (
    Layers,
    Targets,
    matching,
    plain,
    unmatched,
    whole,
)


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
    layers_to_transform: Layers | None = None  # that have them, counted from 0; none: all

    def config(self, model: Any) -> IA3Config:
        targets, inner = plain(self.target_modules), plain(self.feedforward_modules)
        kind = model.config.get_text_config().model_type
        if self.layers_to_transform is not None and (targets or kind in USUAL):
            inner = USUAL_INNER.get(kind, []) if inner is None else inner
            targets = matching(model, targets or USUAL[kind], self.layers_to_transform)
            scaled = set(whole(model, inner)) if inner else set()
            inner = [name for name in targets if name in scaled]
        elif inner is None and isinstance(targets, list) and kind in USUAL_INNER:
            # PEFT would save its whole choice, and refuse it: they must be among the targets.
            usual = USUAL_INNER[kind]
            inner = [name for name in targets if any(f".{name}".endswith(f".{u}") for u in usual)]
        return IA3Config(target_modules=targets, feedforward_modules=inner)

    def refused(self, model: Any, error: Exception) -> str:
        return unmatched(model, self.target_modules, error, "this model", "IA3")

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        inner = written.get("feedforward_modules")
        listed = tuple(sorted(inner)) if isinstance(inner, list) else inner
        return super().read({**written, "feedforward_modules": listed})
