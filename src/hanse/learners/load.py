"""Which base model, how it is held, and how it comes into memory."""

from typing import Any

import torch
from transformers import GenerationConfig

from hanse.errors import UserError
from hanse.learners.backbone import Backbone
from hanse.learners.models import precision, pretrained, quantization, short_attention
from hanse.learners.models.gradient_checkpointing import recompute
from hanse.learners.models.head import Head, choose
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings


def load(
    settings: BaseModelSettings,
    chosen: ComputeMode | None = None,
    classes: int = 0,
    example_kind: str = "",
) -> Backbone:
    """Load a base model and its tokenizer; raises UserError with what is wrong with them.

    chosen: how it computes, if a run has found that out before.
    classes: how many labels an encoder tells apart; 0 if none are asked for.
    example_kind: what its head must read; by default label words if there are classes, else tokens.
    """
    name, device = settings.model_name_or_path, _device(settings.device)
    found = pretrained.find(name)
    example_kind = example_kind or ("label_words" if classes else "tokens")
    head = choose(name, found.config, example_kind, classes)
    chosen = chosen or precision.choose(settings.bf16, found.config, device)
    dtype = torch.bfloat16 if chosen.bf16 else torch.float32
    model, tokenizer, fresh = quantization.load(found, head, settings.quantization, dtype, device)
    if settings.gradient_checkpointing:
        recompute(model, name)
    if head.speaks:
        model.generation_config = _ends(model.generation_config, tokenizer, head)
    if chosen.plain_attention:
        short_attention.use(model)
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
