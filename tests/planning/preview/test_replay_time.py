"""The seconds of replays that hanse check predicts, beside the replays of a run."""

from pathlib import Path

import pytest
import torch

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.planning.preview import estimate, replay_time
from hanse.simulation import run as simulation
from hanse.tensors.named import Tensors

WORDS = ["algorithm.fedkseed.seeds=8", "adapter=none", "train.optim=sgd", "rounds=3"]
WORDS += ["train.max_steps=9", "train.learning_rate=0.001", "train.lr_scheduler_type=constant"]
WORDS += ["fraction_train=0.67"]


def test_the_predicted_replays_are_those_of_the_run(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a second for each direction, the replays' seconds are the number of directions."""
    monkeypatch.setattr(replay_time, "_seconds_each", lambda whole: 1000.0)
    predicted = estimate.preview(load(experiment_file, WORDS)).seconds / 1000
    directions, replay = [], WholeModel.replay

    def counted(self: WholeModel, change: Tensors) -> None:
        directions.append(int(change["amounts"].count_nonzero()) if change else 0)
        replay(self, change)

    monkeypatch.setattr(WholeModel, "replay", counted)
    simulation.run(load(experiment_file, WORDS))
    assert predicted == pytest.approx(sum(directions), rel=0.1)


def test_a_direction_is_timed_and_taken_back(experiment_file: Path) -> None:
    whole = simulate(load(experiment_file, WORDS)).learner.whole_model
    before = {name: weight.clone() for name, weight in whole.weights().items()}
    assert replay_time._seconds_each(whole) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in whole.weights().items())


def test_methods_that_train_an_adapter_replay_nothing(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_time, "_seconds_each", lambda whole: 1e9)
    assert estimate.preview(load(experiment_file)).seconds < 1e6
