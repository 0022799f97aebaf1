"""axolotl: `axolotl train config.yml`."""

from collections.abc import Mapping
from typing import Any

from hanse.planning.conversion import rounds
from hanse.planning.conversion.draft import ONE_PATH, SWITCHED_OFF, Draft, shown
from hanse.planning.conversion.tool import NO_SETTING, PREFERENCES, Tool, one_of, refuse

ENTRY = {  # keys of a data set that hanse settles by looking at the rows
    *("path", "name", "type", "data_files", "ds_type", "split", "roles", "conversation"),
    *("message_field_role", "message_field_content", "message_property_mappings"),
}
COLUMNS = {
    "field": "text",
    "field_messages": "messages",
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_system": "system",
}


def _datasets(draft: Draft, key: str, value: Any) -> None:
    entries = value if isinstance(value, list) else [value]
    setting = "data.validation" if key == "test_datasets" else "data.path"
    first, *others = [e if isinstance(e, Mapping) else {"path": e} for e in entries]
    path = _path(first)
    draft.put(setting, path, key, f"{key}: {shown(path)}")
    for file in _files(first)[1:]:
        draft.leave(f"{key}: {shown(file)}", ONE_PATH)
    for entry in others:
        draft.leave(f"{key}: {shown(entry.get('path'))}", ONE_PATH)
    if setting == "data.path":
        _columns(draft, key, first)


def _path(entry: Mapping[str, Any]) -> str:
    """The file that an entry names, or the hub's owner/name:config."""
    if files := _files(entry):
        return str(files[0])
    return ":".join(str(entry[part]) for part in ("path", "name") if entry.get(part))


def _files(entry: Mapping[str, Any]) -> list[Any]:
    files = entry.get("data_files") or []
    return files if isinstance(files, list) else [files]


def _columns(draft: Draft, key: str, entry: Mapping[str, Any]) -> None:
    """The columns that a data set's entry names, as `data.columns`."""
    kind = entry.get("type")
    named = {**entry, **(kind if isinstance(kind, Mapping) else {})}
    columns = {part: named[name] for name, part in COLUMNS.items() if named.get(name)}
    columns = {part: column for part, column in columns.items() if part != column}
    if columns:
        draft.put("data.columns", columns, key, "ours: theirs")
    if entry.get("split") not in (None, "train"):
        draft.leave(f"{key}: split: {entry['split']}", "hanse reads the split train")
    for name in named.keys() - COLUMNS.keys() - ENTRY:
        draft.leave(f"{key}: {name}", NO_SETTING)


def _all_linear(draft: Draft, key: str, value: Any) -> None:
    """all-linear, which holds the modules that lora_target_modules may name beside it."""
    if value is True:
        draft.settings.pop("adapter.lora.target_modules", None)
        draft.put("adapter.lora.target_modules", "all-linear", key, f"{key}: true")
    else:
        draft.leave(key, SWITCHED_OFF)


def _finish(draft: Draft) -> None:
    rounds.spread(draft, "axolotl")
    rounds.one_adapter(draft, "axolotl", "adapter")


TOOL = Tool(
    name="axolotl",
    marks=frozenset(
        {
            *(
                "base_model",
                "sequence_len",
                "micro_batch_size",
                "datasets",
                "num_epochs",
            ),
            *("lora_target_linear", "val_set_size", "sample_packing", "lora_model_dir"),
        }
    ),
    settings={
        "adapter": one_of({"lora": "", "qlora": ""}, "hanse has LoRA and full fine-tuning for it"),
        "datasets": _datasets,
        "test_datasets": _datasets,
        "pretraining_dataset": _datasets,
        "lora_target_linear": _all_linear,
        "lora_model_dir": "adapter.from",
        "peft_use_rslora": "adapter.lora.use_rslora",
        "peft_use_dora": "adapter.lora.use_dora",
        "peft_layers_to_transform": "adapter.lora.layers_to_transform",
        "rl": refuse(PREFERENCES),
        "reward_model": refuse(PREFERENCES),
    },
    defaults={
        "seed": 42,
        "model.max_length": 512,
        "train.lr_scheduler_type": "cosine",
        "train.per_device_train_batch_size": 1,
        "train.num_train_epochs": 1.0,
    },
    finish=_finish,
)
