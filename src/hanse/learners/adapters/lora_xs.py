"""LoRA-XS (Bałazy et al. 2024, 2405.17604): a small matrix between frozen factors of W."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PositiveFloat

from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import LORA_XS, Adapter, Layers, Targets

with lazy_imports():
    import peft

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.injection.tuners import lora_xs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraXS(Adapter):
    """W + s·B·R·A with s = α/r: B and A are W's first singular vectors, and R alone is trained.

    r² numbers a matrix, whatever its size, so r may be large; where it is above a side of a matrix,
    R has as many rows as that side. R begins as zero. B and A are computed once, by the server, and
    every client gets them from it. What is saved is an ordinary LoRA adapter.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = LORA_XS

    r: Annotated[int, Field(ge=1, le=65_536)] = 32
    lora_alpha: PositiveFloat = 32
    target_modules: Targets = "all-linear"
    layers_to_transform: Layers | None = None  # that have them, counted from 0; none: all

    def config(self, model: Any) -> "lora_xs.CoreConfig":
        targets = modules.plain(self.target_modules)
        layers = self.layers_to_transform
        if layers is not None:
            targets = modules.in_layers(model, self.target_modules, layers)
        return lora_xs.CoreConfig(
            r=self.r,
            lora_alpha=self.lora_alpha,
            target_modules=targets,
            layers_to_transform=None if layers is None else list(layers),
        )

    def refused(self, model: Any, error: Exception) -> str:
        return modules.unmatched(model, self.target_modules, error, "this model", "LoRA-XS")

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Say where the rank is above the size of a matrix."""
        layers = [own for own in model.modules() if isinstance(own, lora_xs.LinearWithCore)]
        ranks = [len(own.core_r[name]) for own in layers if name in own.core_r]
        cut = [rank for rank in ranks if rank < self.r]
        if cut:
            log.warning(
                "adapter.lora_xs.r is %d, above the smaller side of %d of the %d adapted matrices; "
                "there the rank is that side (at least %d)",
                *(self.r, len(cut), len(ranks), min(cut)),
            )
