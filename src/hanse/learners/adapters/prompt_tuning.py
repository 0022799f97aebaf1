"""Prompt tuning (Lester et al. 2021, 2104.08691): a few trained vectors before every text."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, VirtualTokens

with lazy_imports():
    import peft

    from hanse.learners.injection import virtual_tokens


@dataclass(frozen=True)
class PromptTuning(Adapter):
    """The embeddings of num_virtual_tokens virtual tokens before every text."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: ClassVar[str] = "PROMPT_TUNING"

    num_virtual_tokens: VirtualTokens = 20

    def config(self, model: Any) -> "peft.PromptTuningConfig":
        # One prompt, even with a decoder: the encoder's.
        return peft.PromptTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            num_transformer_submodules=1,
            **virtual_tokens.sizes(model),
        )
