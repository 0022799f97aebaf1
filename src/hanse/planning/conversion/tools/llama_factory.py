"""LLaMA-Factory: `llamafactory-cli train config.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.planning.conversion import rounds
from hanse.planning.conversion.draft import ONE_PATH, Draft
from hanse.planning.conversion.tool import PREFERENCES, Tool, one_of, used
from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

INFO = "dataset_info.json"
COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
}


def _dataset(draft: Draft, key: str, value: Any) -> None:
    """The first data set, found in dataset_info.json; the others are left."""
    names = [name.strip() for name in str(value).split(",")] if isinstance(value, str) else value
    first, *others = map(str, names)
    setting = "data.path" if key == "dataset" else "data.validation"
    folder, entries = _entries(draft)
    entry = entries.get(first)
    if not isinstance(entry, Mapping):
        draft.put(setting, first, key)
        if not draft.is_file(first):
            draft.leave(f"{key}: {first}", f"no {INFO} here names its file; name it in {setting}")
    else:
        hub = entry.get("hf_hub_url")
        path = ":".join(filter(None, (hub, entry.get("subset")))) if hub else ""
        path = path or str(folder / str(entry.get("file_name") or entry.get("script_url") or first))
        draft.put(setting, path, key, f"{key}: {first}")
        if setting == "data.path":
            _columns(draft, entry)
    for name in others:
        draft.leave(f"{key}: {name}", ONE_PATH)


def _entries(draft: Draft) -> tuple[Path, Mapping[str, Any]]:
    """The folder of the data sets from the config's, and what dataset_info.json says there."""
    directory = str(draft.source.get("dataset_dir") or "data")
    for base in (draft.folder, Path()):
        for folder in (directory, "."):
            try:
                return Path(folder), json_text.read_object(base / folder / INFO)
            except (OSError, JsonError):
                continue
    return Path(directory), {}


def _columns(draft: Draft, entry: Mapping[str, Any]) -> None:
    """The columns that dataset_info.json names, as `data.columns`."""
    tags, columns = entry.get("tags") or {}, entry.get("columns") or {}
    messages = "messages" if tags.get("role_tag") == "role" else "conversations"
    parts = {**COLUMNS, "messages": messages}
    named = {parts[name]: column for name, column in columns.items() if name in parts}
    if named.keys() == {"instruction"}:  # a text to learn as it is
        named = {"text": named["instruction"]}
    named = {part: column for part, column in named.items() if column and part != column}
    if named:
        draft.put("data.columns", named, "columns", f"ours: theirs, by {INFO}")
    for name in columns.keys() - parts.keys():
        draft.leave(f"{INFO}: columns.{name}", "hanse finds such columns by their names")


def _finish(draft: Draft) -> None:
    if "adapter.lora.r" in draft.settings:
        rank = rounds.amount(draft, "adapter.lora.r")
        draft.default("adapter.lora.lora_alpha", 2 * int(rank), "LLaMA-Factory's default, 2·rank")
    rounds.spread(draft, "LLaMA-Factory")
    rounds.one_adapter(draft, "LLaMA-Factory")


TOOL = Tool(
    name="LLaMA-Factory",
    marks=frozenset(
        {
            *("stage", "finetuning_type", "cutoff_len", "template", "lora_rank", "lora_target"),
            *(
                "dataset_dir",
                "quantization_bit",
                "val_size",
                "preprocessing_num_workers",
                "dataset",
            ),
        }
    ),
    settings={
        "stage": one_of({"sft": "", "pt": ""}, PREFERENCES),
        "finetuning_type": one_of(
            {"lora": "", "full": "adapter.full"}, "hanse has LoRA and full fine-tuning for it"
        ),
        "dataset": _dataset,
        "eval_dataset": _dataset,
        "dataset_dir": used,
        "adapter_name_or_path": "adapter.from",
    },
    defaults={
        "seed": 42,
        "model.max_length": 2048,
        "adapter.lora.r": 8,
        "adapter.lora.target_modules": "all-linear",
        "train.learning_rate": 5e-5,
        "train.lr_scheduler_type": "linear",
        "train.per_device_train_batch_size": 8,
        "train.num_train_epochs": 3.0,
    },
    finish=_finish,
)
