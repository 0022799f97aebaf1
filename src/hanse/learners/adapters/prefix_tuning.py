"""Prefix tuning (Li & Liang 2021, 2101.00190): trained keys and values in every layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, VirtualTokens

with lazy_imports():
    import peft

    from hanse.learners.models import gradient_checkpointing


@dataclass(frozen=True)
class PrefixTuning(Adapter):
    """Every layer attends to num_virtual_tokens more tokens, whose keys and values are trained.

    No network computes them: this is P-tuning v2 (Liu et al. 2022, 2110.07602).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: ClassVar[str] = "PREFIX_TUNING"

    num_virtual_tokens: VirtualTokens = 20

    def config(self, model: Any) -> "peft.PrefixTuningConfig":
        if gradient_checkpointing.recomputed(model):
            raise UserError(
                "prefix_tuning puts keys and values into a cache, and gradient checkpointing would "
                "fill it twice; set model.gradient_checkpointing: false, or choose "
                "another adapter, such as prompt_tuning."
            )
        return peft.PrefixTuningConfig(num_virtual_tokens=self.num_virtual_tokens)
