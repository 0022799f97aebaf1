"""The time of training that hanse check predicts."""

from pathlib import Path

import pytest

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.messages import Update
from hanse.federation.round import open_round
from hanse.federation.server import start
from hanse.journal.run_folder import Journal
from hanse.planning.preview import training_time
from hanse.planning.preview.training_time import Probe
from hanse.simulation.in_process import in_process


@pytest.mark.parametrize(("epochs", "rounds"), [(1.0, 1), (0.5, 1), (2.0, 3)])
def test_known_rows_take_the_time_of_known_rows(
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epochs: float,
    rounds: int,
) -> None:
    """Two seconds a token that is read for the first time, half a second for one that is known."""
    probe = Probe(Update(), first=2.0, again=0.5)
    monkeypatch.setattr(training_time, "_probe", lambda *arguments: probe)
    words = ["train.max_steps=null", f"train.num_train_epochs={epochs}", f"rounds={rounds}"]
    words += ["train.per_device_train_batch_size=1", "data.client_test=0"]
    simulation = simulate(load(experiment_file, words))
    journal = Journal(tmp_path)
    run = simulation.run(journal, in_process(simulation, journal.folder))
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    probes = training_time.probe_clients(simulation, exchange, tmp_path)
    journal.close()
    seconds = training_time.training_seconds(simulation, probes, rounds)
    wanted = 0.0
    for silo in simulation.clients.values():
        train = silo.examples["train"]
        tokens, passes = sum(map(len, train)), round(epochs * len(train)) / len(train) * rounds
        wanted += tokens * (2 * min(1, passes) + 0.5 * max(0, passes - 1))
    assert seconds == pytest.approx(wanted)
