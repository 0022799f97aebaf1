"""A run's data and settings are checked before its model is loaded."""

from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load


class LoadedError(Exception):
    """The model was loaded."""


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise LoadedError

    monkeypatch.setattr(Resources, "backbone", refused)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["adapter={from: nowhere}"], "there is no folder nowhere"),
        (["data.test=1000"], "1000|1,000"),
        (["algorithm=fednova", "train.optim=adamw"], "AdamW"),
        (["data.labels={other: word}"], "label"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_loaded(
    words: list[str], said: str, experiment_file: Path
) -> None:
    with pytest.raises(UserError, match=said):
        simulate(load(experiment_file, words))


def test_nothing_wrong_loads_the_model(experiment_file: Path) -> None:
    with pytest.raises(LoadedError):
        simulate(load(experiment_file))
