"""FlowerTune: the app's pyproject.toml, or its config as YAML."""

from typing import Any

from hanse.planning.conversion.draft import SWITCHED_OFF, Draft
from hanse.planning.conversion.tool import NO_SETTING, Tool, algorithm

ARGUMENTS = "train.training_arguments."
COSINE = "it falls from learning-rate-max over all rounds"


def _rate(draft: Draft, key: str, value: Any) -> None:
    draft.put("train.learning_rate", value, key)
    draft.put("train.lr_scheduler_type", "cosine", key, COSINE)


def _finish(draft: Draft) -> None:
    """A round is max-steps steps where that is given; both are for one round, as in hanse."""
    if draft.value("train.max_steps") and "train.num_train_epochs" in draft.settings:
        draft.drop("train.num_train_epochs", "max-steps precedes it")
    if draft.value("train.max_steps") is None:
        draft.drop("train.max_steps", SWITCHED_OFF)
    draft.default("data.partition", "iid", "FlowerTune divides the rows evenly")


TOOL = Tool(
    name="FlowerTune",
    marks=frozenset(
        {
            *("num_server_rounds", "model.lora.peft_lora_r", "train.seq_length", "dataset.name"),
            *("strategy.fraction_fit", "train.learning_rate_max", "static.dataset.name"),
            f"{ARGUMENTS}max_steps",
        }
    ),
    settings={
        "static.dataset.name": "data.path",
        "dataset.name": "data.path",
        "model.name": "model.model_name_or_path",
        "train.learning_rate_max": _rate,
        "strategy._target_": algorithm,
        "num_supernodes": "num_clients",
        "num_rounds": "rounds",
        "num_clients": "num_clients",
    },
    reasons={
        "train.learning_rate_min": "hanse's cosine falls to zero",
        f"{ARGUMENTS}learning_rate": "learning-rate-max precedes it",
        f"{ARGUMENTS}lr_scheduler_type": COSINE,
        f"{ARGUMENTS}output_dir": "output_dir is the run's folder",
        f"{ARGUMENTS}_target_": NO_SETTING,
    },
    defaults={"adapter.lora.r": 32, "adapter.lora.lora_alpha": 64, "model.max_length": 512},
    finish=_finish,
    sections=frozenset(
        {"", "train", "train.training_arguments", "model", "model.lora", "dataset", "strategy"}
    ),
)
