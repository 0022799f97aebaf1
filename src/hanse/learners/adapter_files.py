"""Adapters on disk, as PEFT writes them: a configuration and the tensors."""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, get_peft_model_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hanse import parts
from hanse.errors import UserError
from hanse.learners.adapter import Adapter
from hanse.learners.attached import ENCODER
from hanse.learners.tuners import lora_xs
from hanse.messages import own_storage
from hanse.tensors import Tensors

FOLDER = "learners/adapters"  # where the package keeps the kinds of adapters
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LABELS = "labels.json"  # of a classifier; PEFT has no place for them


def save(
    model: PeftModel,
    adapter: str,
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
    aside: Sequence[str] = (),
) -> None:
    """Write an adapter as PEFT writes it: its configuration and its tensors.

    tensors: all that are trained; what PEFT keeps beside them, such as random projections, is in
        the model. What makes a prompt is not kept, only the prompt.
    rank: of tensors that are of another one than the adapter, and whose product is not scaled.
    aside: what stands in the names of tensors that are left out, since the configuration does not
        tell of them.
    """
    config: Any = copy(model.peft_config[adapter])
    with torch.no_grad():  # a prompt is made just as it is for scores
        beside = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    if config.peft_type == lora_xs.KIND:
        config, tensors = lora_xs.as_lora(model, adapter, tensors)
        beside = {}
    config.inference_mode = True
    if rank is not None:
        config.r = config.lora_alpha = rank
        config.use_rslora = False
    config.save_pretrained(str(folder))
    whole = {**{name: tensor.contiguous() for name, tensor in beside.items()}, **tensors}
    whole = {
        name: tensor
        for name, tensor in whole.items()
        if not name.startswith(ENCODER) and not any(part in name for part in aside)
    }
    if aside:  # without what was around a layer, its adapter is at the layer's own name
        whole = {name.replace(".base_layer.", "."): tensor for name, tensor in whole.items()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(own_storage(whole), {"format": "pt"}))


def save_labels(labels: Mapping[str, str], folder: Path) -> None:
    """Write what a classifier's outputs stand for, in their order.

    id2label: as transformers has it in a model's configuration. labels: each label in the data,
    and its word.
    """
    told = {"id2label": {str(at): word for at, word in enumerate(labels.values())}}
    text = json.dumps({**told, "labels": dict(labels)}, ensure_ascii=False, indent=2)
    (folder / LABELS).write_text(text + "\n", encoding="utf-8")


def labels(folder: Path) -> dict[str, str]:
    """What the outputs of a classifier on disk stand for; empty if that is not said there."""
    if not (folder / LABELS).is_file():
        return {}
    try:
        told = json.loads((folder / LABELS).read_text(encoding="utf-8"))["labels"]
        return {str(label): str(word) for label, word in told.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"{folder / LABELS} does not say which labels the adapter's outputs stand for; bring "
            "the file back, or remove it to have the labels in sorted order."
        ) from None


def task(folder: Path) -> str:
    """What PEFT calls the task of an adapter on disk; empty if that is not said."""
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["task_type"] or "")
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def read(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """Settings and tensors of an adapter on disk; raises UserError if there is none to use."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no adapter that can be read ({error}); name a run folder, or a PEFT "
            f"folder with {CONFIG} and {WEIGHTS}."
        ) from None
    found = parts.find(FOLDER, _name(config, folder))
    assert issubclass(found, Adapter)
    try:
        return found.read(config), tensors
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{folder / CONFIG}: {first['loc'][0]} {first['msg'].lower()}.") from None
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} {error}; such an adapter cannot be used.") from None


def _name(config: Any, folder: Path) -> str:
    """Which of our kinds of adapters is written in a configuration."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    for name in parts.names(FOLDER):
        if kind and getattr(parts.find(FOLDER, name), "kind", None) == kind:
            return name
    if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        return "peft"
    raise UserError(
        f"{folder / CONFIG} has the peft_type {kind!r}, which the PEFT that is installed does not "
        "know; install the version that wrote it."
    )


def base(folder: Path) -> str:
    """The base model that an adapter on disk is for; raises UserError if that is not said."""
    try:
        name = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{folder / CONFIG} does not say which base model the adapter is for; write its "
            "base_model_name_or_path."
        )
    return name
