"""Adapters on disk, as PEFT writes them: a configuration and the tensors."""

import json
from collections.abc import Collection, Mapping, Sequence
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

from hanse import registry
from hanse.errors import UserError
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection import mixed
from hanse.learners.injection.adapter import LORA_XS, Adapter
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS, folders, marked
from hanse.learners.injection.attached_adapter import ENCODER
from hanse.learners.injection.mixed import Mixed
from hanse.learners.injection.tuners import bottleneck as bottleneck  # PEFT knows the kind then
from hanse.learners.injection.tuners import lora_xs
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import own_storage

FOLDER = "learners/adapters"  # where the package keeps the kinds of adapters
LABELS = "labels.json"  # of a classifier; PEFT has no place for them


def save(
    model: PeftModel,
    adapter: str,
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
) -> None:
    """Write an adapter of one kind as PEFT writes it: its configuration and its tensors.

    tensors: all that are trained; what PEFT keeps beside them, such as random projections, is in
        the model. What makes a prompt is not kept, only the prompt.
    rank: of tensors that are of another one than the adapter, and whose product is not scaled.
    """
    config: Any = model.peft_config[adapter]
    with torch.no_grad():  # a prompt is made just as it is for scores
        beside = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    if config.peft_type == LORA_XS:
        config, tensors = lora_xs.as_lora(model, adapter, tensors)
        beside = {}
    whole = {**{name: tensor.contiguous() for name, tensor in beside.items()}, **tensors}
    whole = {name: tensor for name, tensor in whole.items() if not name.startswith(ENCODER)}
    _write(folder, config, whole, rank)


def save_mixed(
    configs: Sequence[Any],
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
    without: Collection[str] = (),
) -> None:
    """Write an adapter of several kinds: the first one as PEFT writes it, each of the others in a
    folder inside that has the kind's name. PEFT loads them one after another, and wants a head
    that is trained in each of them.

    configs: PEFT's, of each kind; each is around those before it. tensors: all that are trained.
    rank: of LoRA's tensors, as in `save`. without: kinds that are left out, by PEFT's names.
    """
    divided, rest = mixed.divided(tensors, [config.peft_type for config in configs])
    pairs = list(zip(configs, divided, strict=True))
    pairs = [pair for pair in pairs if pair[0].peft_type not in without]
    around = [str(config.peft_type.lower()) for config, _ in pairs[1:]]
    for name, (config, own) in zip(("", *around), pairs, strict=True):
        whole = copy(config)
        whole.task_type, whole.modules_to_save = configs[0].task_type, configs[0].modules_to_save
        _write(folder / name, whole, {**own, **rest}, rank, () if name else around)


def _write(
    folder: Path,
    config: Any,
    tensors: dict[str, Tensor],
    rank: int | None,
    around: Sequence[str] = (),
) -> None:
    """One kind's configuration and tensors; around: the folders of the kinds around it."""
    config = copy(config)
    config.inference_mode = True
    if rank is not None and config.peft_type == Lora.kind:
        config.r = config.lora_alpha = rank
        config.use_rslora = False
    for name, value in vars(config).items():
        if isinstance(value, set):  # whose order PEFT leaves to chance
            setattr(config, name, sorted(value))
    config.save_pretrained(str(folder))
    weights = safetensors.torch.save(own_storage(tensors), {"format": "pt"})
    (folder / WEIGHTS).write_bytes(marked(weights, around))


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
    (settings, tensors), *others = [_read(place) for place in kinds(folder)]
    if not others:
        return settings, tensors
    try:
        whole = Mixed.of([settings, *(other for other, _ in others)])
    except ValueError as error:
        raise UserError(f"{folder} cannot be used: {error}") from None
    divided = [tensors, *(own for _, own in others)]
    return whole, mixed.nested(divided, [kind.kind for kind in whole.kinds])


def kinds(folder: Path) -> list[Path]:
    """The folders of all kinds of an adapter on disk; raises UserError if there is none to use."""
    try:
        return folders(folder)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder} holds no adapter that can be read ({error}); name a run folder, or a PEFT "
        f"folder with {CONFIG} and {WEIGHTS}."
    )


def _read(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """Settings and tensors of one kind."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(folder, error) from None
    found = registry.find(FOLDER, _name(config, folder))
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
    for name in registry.names(FOLDER):
        if kind and getattr(registry.find(FOLDER, name), "kind", None) == kind:
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
