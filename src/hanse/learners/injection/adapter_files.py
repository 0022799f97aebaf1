"""Writes and reads adapters in PEFT's form: a configuration and the tensors."""

import json
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import fields
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
from hanse.learners.adapters.lora import PATTERNS, Lora
from hanse.learners.injection import mixed
from hanse.learners.injection.adapter import IN_PLACE, LORA_XS, Adapter
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS, folders, marked
from hanse.learners.injection.attached_adapter import ENCODER
from hanse.learners.injection.mixed import Mixed
from hanse.learners.injection.tuners import bottleneck as bottleneck  # PEFT knows the kind then
from hanse.learners.injection.tuners import lora_xs
from hanse.tensors import json_text
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import own_storage

FOLDER = "learners/adapters"  # of the package, with the kinds of adapters
LABELS = "labels.json"  # a classifier's labels, for which PEFT has no file


def save(
    model: PeftModel,
    adapter: str,
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
) -> None:
    """Write an adapter of one kind in PEFT's form: its configuration and its tensors.

    tensors: the trained ones. Others that PEFT saves, such as random projections, are taken from
        the model. Of prompts only the vectors are saved, not the encoder that makes them.
    rank: of LoRA's tensors, if it is not the adapter's; their product is then not scaled.
    """
    config: Any = model.peft_config[adapter]
    with torch.no_grad():  # prompts are computed as they are for scores
        state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    if config.peft_type == LORA_XS:
        config, tensors = lora_xs.as_lora(model, adapter, tensors)
        state = {}
    saved = {**{name: tensor.contiguous() for name, tensor in state.items()}, **tensors}
    saved = {name: tensor for name, tensor in saved.items() if not name.startswith(ENCODER)}
    _write(folder, config, saved, rank)


def save_mixed(
    configs: Sequence[Any],
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
    without: Collection[str] = (),
) -> None:
    """Write an adapter of several kinds: the innermost in `folder`, each other in a folder inside.

    These have the kinds' names. PEFT loads the folders one after another, and each needs the head.
    configs: PEFT's of each kind, innermost first. tensors: all that are trained.
    rank: of LoRA's tensors, as in `save`. without: PEFT's names of kinds that are left out.
    """
    by_kind, head = mixed.split_by_kind(tensors, [config.peft_type for config in configs])
    pairs = list(zip(configs, by_kind, strict=True))
    pairs = [pair for pair in pairs if pair[0].peft_type not in without]
    around = [str(config.peft_type.lower()) for config, _ in pairs[1:]]
    for name, (config, part) in zip(("", *around), pairs, strict=True):
        config = copy(config)
        config.task_type, config.modules_to_save = configs[0].task_type, configs[0].modules_to_save
        _write(folder / name, config, {**part, **head}, rank, () if name else around)


def save_change(tensors: Tensors, folder: Path, base_model: str | None, task: str) -> None:
    """Write a change of all weights: its configuration, its seed and its amounts.

    base_model: its hub's id, if it has one. task: PEFT's name of the task of the model's head.
    """
    config = {"peft_type": IN_PLACE, "task_type": task, "base_model_name_or_path": base_model}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(dict(tensors), {"format": "pt"}))


def _write(
    folder: Path,
    config: Any,
    tensors: dict[str, Tensor],
    rank: int | None,
    around: Sequence[str] = (),
) -> None:
    """Write one kind's configuration and tensors; around: the folders of the kinds around it."""
    config = copy(config)
    config.inference_mode = True
    if rank is not None and config.peft_type == Lora.kind:
        config.r = config.lora_alpha = rank
        config.use_rslora, config.rank_pattern, config.alpha_pattern = False, {}, {}
    for setting in fields(config):
        value = getattr(config, setting.name)
        if isinstance(value, set):  # PEFT writes a set in any order
            setattr(config, setting.name, sorted(value))
        elif type(setting.default) is int or setting.name in PATTERNS:
            setattr(config, setting.name, _whole(value))
    config.save_pretrained(str(folder))
    weights = safetensors.torch.save(own_storage(tensors), {"format": "pt"})
    (folder / WEIGHTS).write_bytes(marked(weights, around))


def _whole(value: Any) -> Any:
    """A setting that PEFT has as a whole number, such as α; other readers refuse 16.0 for 16."""
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def save_labels(labels: Mapping[str, str], folder: Path) -> None:
    """Write the labels of a classifier's outputs, in the order of the outputs.

    id2label: as in transformers' configuration of a model. labels: label in the data → its word.
    """
    names = {str(at): word for at, word in enumerate(labels.values())}
    content = {"id2label": names, "labels": dict(labels)}
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (folder / LABELS).write_text(text + "\n", encoding="utf-8")


def labels(folder: Path) -> dict[str, str]:
    """The labels of a classifier's outputs on disk (label → word); empty without the file."""
    if not (folder / LABELS).is_file():
        return {}
    try:
        words = json_text.read_object(folder / LABELS)["labels"]
        return {str(label): str(word) for label, word in words.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"{folder / LABELS} does not name the labels of the adapter's outputs; bring the file "
            "back, or remove it to have the labels in sorted order."
        ) from None


def task(folder: Path) -> str:
    """PEFT's name of the task of an adapter on disk; empty if the file has none."""
    try:
        return str(json_text.read_object(folder / CONFIG)["task_type"] or "")
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def read(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """Settings and tensors of an adapter on disk; raises UserError if it cannot be used."""
    (settings, tensors), *others = [_read(place) for place in kind_folders(folder)]
    if not others:
        return settings, tensors
    try:
        combined = Mixed.of([settings, *(other for other, _ in others)])
    except ValueError as error:
        raise UserError(f"{folder} cannot be used: {error}") from None
    by_kind = [tensors, *(part for _, part in others)]
    return combined, mixed.join_kinds(by_kind, [kind.kind for kind in combined.kinds])


def kind_folders(folder: Path) -> list[Path]:
    """The folders of all kinds of an adapter on disk; raises UserError if it cannot be used."""
    try:
        return folders(folder)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> UserError:
    """The error for a folder without an adapter."""
    return UserError(
        f"{folder} holds no adapter that can be read ({error}); name a run folder, or a PEFT "
        f"folder with {CONFIG} and {WEIGHTS}."
    )


def _read(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """Settings and tensors of one kind."""
    try:
        config = json_text.read_object(folder / CONFIG)
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(folder, error) from None
    kind = registry.find(FOLDER, _name(config, folder))
    assert issubclass(kind, Adapter)
    try:
        return kind.read(config), tensors
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{folder / CONFIG}: {first['loc'][0]} {first['msg'].lower()}.") from None
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} {error}; such an adapter cannot be used.") from None


def _name(config: Any, folder: Path) -> str:
    """The name of the kind of adapter that a configuration is of; raises UserError for none."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    for name in registry.names(FOLDER):
        if kind and getattr(registry.find(FOLDER, name), "kind", None) == kind:
            return name
    if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        return "peft"
    raise UserError(
        f"{folder / CONFIG} has the peft_type {kind!r}, which the installed PEFT does not "
        "know; install the version that wrote it."
    )


def base_model(folder: Path) -> str | None:
    """The name of an adapter's base model; None if its configuration has none."""
    try:
        name = json_text.read_object(folder / CONFIG)["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) and name else None
