"""A base model and its tokenizer, loaded into memory as the settings say."""

import logging
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig

from hanse.errors import UserError
from hanse.learners.backbone import Backbone
from hanse.learners.kernels import frozen, gelu, rms_norm, short_attention, unpadded
from hanse.learners.models import precision, pretrained, quantization, segments
from hanse.learners.models.gradient_checkpointing import recompute
from hanse.learners.models.head import Head, choose
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings, Kernel
from hanse.observability.memory import available_memory
from hanse.observability.paired_timing import Measurement

PACKED_SHARE = 0.25  # of the free memory, which packed weights may take

log = logging.getLogger(__name__)


def load(
    settings: BaseModelSettings,
    compute_mode: ComputeMode | None = None,
    classes: int = 0,
    example_kind: str = "",
) -> Backbone:
    """Load a base model and its tokenizer; raises UserError if that fails.

    compute_mode: that of an earlier part of the run; by default it is measured.
    classes: the number of labels that an encoder has outputs for; 0 for no such outputs.
    example_kind: what its head must read; by default label words if there are classes, else tokens.
    """
    name, device = settings.model_name_or_path, device_of(settings.device)
    source = pretrained.find(name)
    example_kind = example_kind or ("label_words" if classes else "tokens")
    head = choose(name, source.config, example_kind, classes)
    mode, measurement = _mode(settings, compute_mode, source.config, device)
    dtype = torch.bfloat16 if mode.bf16 else torch.float32
    model, tokenizer, fresh = quantization.load(source, head, settings.quantization, dtype, device)
    if settings.gradient_checkpointing:
        recompute(model, name)
    if head.generates_text:
        model.generation_config = _end_tokens(model.generation_config, tokenizer, head)
    if compute_mode is None:
        mode = _in_memory(mode, model, settings)
    if not head.causal:
        segments.use(model, tokenizer)
    _compute(model.to(device), mode)
    backbone = Backbone(
        *(name, model, tokenizer, device, mode, head, fresh, settings.activation_cache),
        measurement=measurement,
    )
    if head.causal and mode.products != "plain":
        with backbone.autocast():
            backbone.needs_padding = not unpadded.is_possible(model)
    return backbone


def _compute(model: Any, mode: ComputeMode) -> None:
    """Let a model compute in a mode; its precision is that of its weights."""
    if mode.plain_attention or mode.products != "plain":
        short_attention.use(model, mode.plain_attention)
    if mode.products != "plain":
        frozen.use(model, mode.products)
        gelu.use(model)
        rms_norm.use(model)


def _mode(
    settings: BaseModelSettings, mode: ComputeMode | None, config: Any, device: torch.device
) -> tuple[ComputeMode, Measurement]:
    """The compute mode, and the measurement of it if none was given."""
    kernels, measurement = frozen.kernels(device), Measurement()
    if mode is None:
        mode, measurement = precision.choose(settings, config, device, kernels)
    if settings.products != "auto":
        mode = replace(mode, products=settings.products)
    return _available(mode, kernels), measurement


def _in_memory(mode: ComputeMode, model: Any, settings: BaseModelSettings) -> ComputeMode:
    """The mode; with oneDNN's products of weights as they are if packed ones would fill memory."""
    copies = 2 * frozen.size(model) if mode.products == "packed" else 0
    if settings.products != "auto" or copies <= PACKED_SHARE * available_memory():
        return mode
    log.warning(
        "packed weights of %s would take %.1f GB of memory, more than a quarter of what is free, "
        "so they are not packed; model.products=packed packs them anyway",
        *(settings.model_name_or_path, copies / 1e9),
    )
    return replace(mode, products="onednn")


def _available(mode: ComputeMode, kernels: tuple[Kernel, ...]) -> ComputeMode:
    """The mode; with torch's products if this machine lacks the kernel that another one chose."""
    if mode.products in ("plain", *kernels):
        return mode
    log.warning(
        "products with frozen weights are torch's here, since torch has no kernel %s on this "
        "device: results differ from those of the other machines in their last bits",
        mode.products,
    )
    return replace(mode, products="torch")


def device_of(setting: str) -> torch.device:
    """The device of a setting; auto: a GPU if torch sees one. Raises UserError if it is missing."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is cuda, but torch sees no GPU; use auto or cpu.")
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(setting)


def _end_tokens(recommended: GenerationConfig, tokenizer: Any, head: Head) -> GenerationConfig:
    """The tokens that begin and end an answer, without the model's other recommendations.

    With its penalties, generation would not choose the most likely token. A chat model may have
    several end tokens; the tokenizer's is the one that training teaches.
    """
    ids = recommended.eos_token_id
    ends = {*(ids if isinstance(ids, list) else [ids]), tokenizer.eos_token_id} - {None}
    return GenerationConfig(
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
        decoder_start_token_id=getattr(head, "start", None),
    )
