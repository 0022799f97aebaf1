"""IA3 (Liu et al. 2022, 2205.05638): activations of frozen layers are scaled by trained vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, Layers, Targets

with lazy_imports():
    import peft
    from peft.utils import constants

    from hanse.learners.injection import target_modules as modules


@dataclass(frozen=True)
class IA3(Adapter):
    """Keys, values and the input of the second feed-forward layer are multiplied by a vector of 1s.

    feedforward_modules: the target modules whose input is scaled, not their output. Both are PEFT's
        choice for the architecture unless they are set.
    layers_to_transform: the layers that are adapted, counted from 0; none: all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: ClassVar[str] = "IA3"

    target_modules: Targets = None
    feedforward_modules: Targets = None
    layers_to_transform: Layers | None = None

    def config(self, model: Any) -> "peft.IA3Config":
        targets = modules.plain(self.target_modules)
        inner = modules.plain(self.feedforward_modules)
        kind = model.config.get_text_config().model_type
        usual = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
        usual_inner = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind)
        if self.layers_to_transform is not None and (chosen := targets or usual):
            inner = usual_inner or [] if inner is None else inner
            targets = modules.matching(model, chosen, self.layers_to_transform)
            scaled = set(modules.full_names(model, inner)) if inner else set()
            inner = [name for name in targets if name in scaled]
        elif inner is None and isinstance(targets, list) and usual_inner is not None:
            # Only modules among the targets: PEFT saves its whole choice, and refuses others later.
            ends = tuple(f".{name}" for name in usual_inner)
            inner = [name for name in targets if f".{name}".endswith(ends)]
        return peft.IA3Config(target_modules=targets, feedforward_modules=inner)

    def refusal(self, model: Any, error: Exception) -> str:
        return modules.unmatched(model, self.target_modules, error, "this model", "IA3")

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        inner = written.get("feedforward_modules")
        listed = tuple(sorted(inner)) if isinstance(inner, list) else inner
        return super().read({**written, "feedforward_modules": listed})
