"""TRL: `trl sft --config config.yaml`, and the alignment handbook's recipes."""

from collections.abc import Mapping
from typing import Any

from hanse.planning.conversion import rounds
from hanse.planning.conversion.draft import ONE_PATH, Draft, shown
from hanse.planning.conversion.tool import PREFERENCES, Tool, refuse, used

METHODS = ("beta", "max_prompt_length", "num_generations", "reward_funcs", "reward_model_path")


def _mixture(draft: Draft, key: str, value: Any) -> None:
    """The first training set of a mixture; the others are left."""
    entries = value.get("datasets") if isinstance(value, Mapping) else value
    sets = [entry for entry in entries or () if isinstance(entry, Mapping)]
    for number, entry in enumerate(sets):
        name, config = entry.get("path") or entry.get("id"), entry.get("name")
        config = config or entry.get("config")
        origin = f"{key}: {shown(name)} {entry.get('split') or ''}".rstrip()
        if number:
            draft.leave(origin, ONE_PATH)
            continue
        path = f"{name}:{config}" if config and config != "default" else name
        draft.put("data.path", path, key, origin)
        if entry.get("split") not in (None, "train"):
            draft.leave(f"{key}: split: {entry['split']}", "hanse reads the split train")


def _finish(draft: Draft) -> None:
    config = draft.source.get("dataset_config") or draft.source.get("dataset_config_name")
    if config and "data.path" in draft.settings:
        path = f"{draft.settings.pop('data.path').value}:{config}"
        draft.put("data.path", path, "dataset_name", "dataset_name:dataset_config")
    rounds.spread(draft, "TRL")
    rounds.one_adapter(draft, "TRL", "use_peft")


def _text(draft: Draft, key: str, value: Any) -> None:
    if value != "text":
        draft.put("data.columns", {"text": value}, key, "ours: theirs")


TOOL = Tool(
    name="TRL",
    marks=frozenset(
        {
            *("dataset_name", "dataset_mixture", "dataset_train_split", "dataset_text_field"),
            *("use_peft", "lora_task_type", "max_seq_length", "completion_only_loss", "packing"),
            *("model_name_or_path", "lora_target_modules", "max_length", "dataset_mixer"),
        }
    ),
    settings={
        "dataset_mixture": _mixture,
        "datasets": _mixture,
        "dataset_config": used,
        "dataset_config_name": used,
        "dataset_text_field": _text,
        "use_peft": used,
        **dict.fromkeys(METHODS, refuse(PREFERENCES)),
    },
    reasons={
        "dataset_train_split": "hanse reads the split train",
        "dataset_test_split": "hanse holds test rows out of the training rows, by data.test",
        "lora_task_type": "the objective says it",
        "lora_modules_to_save": "hanse's LoRA trains no whole modules beside its factors",
    },
    defaults={
        "seed": 42,
        "adapter.lora.r": 16,
        "adapter.lora.lora_alpha": 32,
        "adapter.lora.lora_dropout": 0.05,
        "model.max_length": 1024,
        "train.learning_rate": 2e-5,
        "train.lr_scheduler_type": "linear",
        "train.per_device_train_batch_size": 8,
        "train.num_train_epochs": 3.0,
    },
    finish=_finish,
)
