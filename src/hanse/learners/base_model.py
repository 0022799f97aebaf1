"""Which base model, how it is held, and how it comes into memory."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from transformers import GenerationConfig

from hanse.errors import UserError
from hanse.learners import attention, precision, pretrained, quantization
from hanse.learners.backbone import Backbone
from hanse.learners.checkpointing import recompute
from hanse.learners.head import Head, choose
from hanse.learners.precision import Chosen
from hanse.learners.quantization import Quantization
from hanse.learners.sources import DEFAULT

Loaded = tuple[str | bool, ...]  # what tells one model in memory from another


@dataclass(frozen=True)
class Model:
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


def load(
    settings: Model, chosen: Chosen | None = None, classes: int = 0, needs: str = ""
) -> Backbone:
    """Load a base model and its tokenizer; raises UserError with what is wrong with them.

    chosen: how it computes, if a run has found that out before.
    classes: how many labels an encoder tells apart; 0 if none are asked for.
    needs: what is asked of its head; none: labels of whole texts if there are any, else tokens.
    """
    name, device = settings.model_name_or_path, _device(settings.device)
    found = pretrained.find(name)
    head = choose(name, found.config, needs or ("choices" if classes else "tokens"), classes)
    chosen = chosen or precision.choose(settings.bf16, found.config, device)
    dtype = torch.bfloat16 if chosen.bf16 else torch.float32
    model, tokenizer, fresh = quantization.load(found, head, settings.quantization, dtype, device)
    if settings.gradient_checkpointing:
        recompute(model, name)
    if head.speaks:
        model.generation_config = _ends(model.generation_config, tokenizer, head)
    if chosen.plain_attention:
        attention.use(model)
    return Backbone(
        name,
        model.to(device),
        tokenizer,
        device,
        chosen.bf16,
        head,
        fresh,
        settings.activation_cache,
        chosen.plain_attention,
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is cuda, but torch sees no GPU; use auto or cpu.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _ends(recommended: GenerationConfig, tokenizer: Any, head: Head) -> GenerationConfig:
    """Which tokens begin and end an answer, and nothing else of what a model recommends.

    With its penalties the most likely token would not be the one that is said. A chat model may
    have several ends; the tokenizer's is the one that training teaches.
    """
    named = recommended.eos_token_id
    ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id} - {None}
    return GenerationConfig(
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
        decoder_start_token_id=getattr(head, "start", None),
    )
