"""Settings of the base model."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hanse.learners.models.model_files import DEFAULT

Kernel = Literal["torch", "onednn", "packed"]  # of products with frozen weights
Products = Literal["plain", "torch", "onednn", "packed"]  # plain: as transformers and PEFT compute
Quantization = Literal["none", "int8", "nf4"]
Loaded = tuple[str | bool, ...]  # the settings on which a model in memory depends


@dataclass(frozen=True)
class BaseModelSettings:
    """Settings of the base model and its form in memory."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    model_name_or_path: str = DEFAULT
    bf16: bool | Literal["auto"] = "auto"  # auto: if it is faster here, which is measured
    # The kernel of products with frozen weights. auto: the fastest here, which is measured; packed
    # weights are kept twice beside the weights; plain: as transformers and PEFT compute.
    products: Literal["auto"] | Products = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # The most tokens of an example; longer ones are cut. None: 512, or as many as the model reads.
    max_length: Annotated[int, Field(ge=8)] | None = None
    # A longer text, with nothing asked: read all of it in windows of max_length, or cut its end.
    long_texts: Literal["windows", "cut"] = "windows"
    # Keep the output of frozen layers below all adapters for each row, in memory or on disk.
    activation_cache: bool = True
    quantization: Quantization = "none"  # of the base's weights: int8 or nf4 take less memory
    # Compute each layer again in the backward pass: less memory, about half as much time again.
    gradient_checkpointing: bool = False

    @property
    def loaded(self) -> Loaded:
        """The settings on which a model in memory depends, as a key."""
        return (
            *(self.model_name_or_path, self.bf16, self.device, self.activation_cache),
            *(self.quantization, self.gradient_checkpointing, self.products),
        )

    @property
    def compute_mode_key(self) -> str:
        """The key of this model's compute mode in a run folder."""
        products = "" if self.products == "auto" else f", products {self.products}"
        return f"{self.model_name_or_path}, bf16 {self.bf16}, device {self.device}{products}"
