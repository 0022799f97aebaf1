"""LoRA-XS (Bałazy et al. 2024, 2405.17604): a small matrix between frozen factors of W."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from hanse.lazy_imports import lazy_imports
from hanse.learners.adapters.lora import Alpha
from hanse.learners.injection.adapter import LORA_XS, Adapter, Layers, Targets

with lazy_imports():
    import peft

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.injection.tuners import lora_xs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraXS(Adapter):
    """W + s·B·R·A with s = α/r: B and A are W's first singular vectors, and only R is trained.

    R has r² numbers, whatever the size of W, and begins as zero. r may be large; if it is above a
    side of W, R has as many rows as that side. The server computes B and A once and sends them to
    the clients. The result is saved as a LoRA adapter.
    layers_to_transform: the layers that are adapted, counted from 0; none: all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = LORA_XS

    r: Annotated[int, Field(ge=1, le=65_536)] = 32
    lora_alpha: Alpha = 32
    target_modules: Targets = "all-linear"
    layers_to_transform: Layers | None = None

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

    def refusal(self, model: Any, error: Exception) -> str:
        return modules.unmatched(model, self.target_modules, error, "this model", "LoRA-XS")

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Log a warning if the rank is above the size of some matrices."""
        layers = [layer for layer in model.modules() if isinstance(layer, lora_xs.LinearWithCore)]
        ranks = [len(layer.core_r[name]) for layer in layers if name in layer.core_r]
        cut = [rank for rank in ranks if rank < self.r]
        if cut:
            log.warning(
                "adapter.lora_xs.r is %d, above the smaller side of %d of the %d adapted matrices; "
                "their rank is that side (at least %d)",
                *(self.r, len(cut), len(ranks), min(cut)),
            )
