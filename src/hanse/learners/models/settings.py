"""Settings of the base model."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hanse.learners.models.model_files import DEFAULT

Quantization = Literal["none", "int8", "nf4"]
Loaded = tuple[str | bool, ...]  # what tells one model in memory from another


@dataclass(frozen=True)
class BaseModelSettings:
    """Which base model, and how it is held."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    model_name_or_path: str = DEFAULT
    bf16: bool | Literal["auto"] = "auto"  # auto: if it is faster here, which is measured
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Most tokens of one example, longer ones are cut; none: 512, or what the model can read.
    max_length: Annotated[int, Field(ge=8)] | None = None
    # What frozen layers below all adapters make of a row is kept, in memory or the cache folder.
    activation_cache: bool = True
    quantization: Quantization = "none"  # of the base's weights: int8 or nf4 take less memory
    # Each layer is computed again in the backward pass: less memory, half as much time again.
    gradient_checkpointing: bool = False

    @property
    def loaded(self) -> Loaded:
        """What tells one model in memory from another."""
        return (
            *(self.model_name_or_path, self.bf16, self.device, self.activation_cache),
            *(self.quantization, self.gradient_checkpointing),
        )

    @property
    def noted(self) -> str:
        """Under which name a run folder notes how the model computes."""
        return f"{self.model_name_or_path}, bf16 {self.bf16}, device {self.device}"
