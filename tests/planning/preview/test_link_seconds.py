"""The simulated seconds that hanse check predicts, beside those of the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.planning.preview import estimate
from hanse.simulation import run as simulation
from samples import Outcome

LINKS = "links={up_mbps: [10, 10, 0.1], down_mbps: 50, latency_ms: 40, seconds_per_step: 0.5}"


def test_the_predicted_seconds_are_those_of_the_run(experiment_file: Path) -> None:
    words = [LINKS, "rounds=1", "clients_per_pass=2"]
    predicted = estimate.preview(load(experiment_file, words)).links
    assert predicted is not None and predicted.slowest == "silo-3" and predicted.late == ()
    folder = simulation.run(load(experiment_file, words))
    assert read_rounds(folder)[1].simulated_seconds["train"] == predicted.seconds
    for record in read_ledger(folder):
        rate = 0.1e6 if record.client == "silo-3" else 10e6
        journey = record.simulated
        assert journey is not None
        assert journey.up == pytest.approx(0.04 + 8 * record.up / rate, abs=1e-12)
        steps = record.numbers["steps"] if record.kind == "train" else 0
        assert journey.training == 0.5 * steps


@pytest.mark.parametrize(
    ("words", "asked", "used", "off"),
    [
        (["fraction_train=0.34"], 1, 1, 0.0),
        (["fraction_train=0.67", "deployment.over_selection=1.5"], 3, 2, 0.0),
        (["deployment.deadline=2", "deployment.quorum=2"], 3, 2, 0.0),
        (["compression={upload: [zstd]}"], 3, 3, 0.05),  # whose length depends on the values
    ],
)
def test_the_seconds_are_those_until_the_last_awaited_reply(
    experiment_file: Path, words: list[str], asked: int, used: int, off: float
) -> None:
    words = [LINKS, "rounds=1", "evaluation.clients=false", *words]
    preview = estimate.preview(load(experiment_file, words))
    assert preview.clients_a_round == asked and preview.links is not None
    folder = simulation.run(load(experiment_file, words))
    record = read_rounds(folder)[1]
    assert record.simulated_seconds["train"] == pytest.approx(preview.links.seconds, rel=off)
    assert len(record.clients) == used
    assert "silo-3" not in record.clients or used != 2


def test_a_late_client_is_predicted_and_left_out(
    hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    common = [LINKS, "clients={silo-3: {links: {up_mbps: 0.001}}}", "rounds=1"]
    common += ["deployment.deadline=20", "evaluation.clients=false"]
    words = [*common, "deployment.quorum=2"]
    shown = hanse("check", experiment_file, *words).out
    text = " ".join(shown.split())
    assert "silo-3 is the slowest client" in text
    assert "silo-3 misses the deadline of 20 s" in text and "too few" not in text
    few = hanse("check", experiment_file, *common, "deployment.quorum=3").out
    assert "and 2 of 3 updates are too few" in " ".join(few.split())
    ended = hanse("run", experiment_file, *words)
    assert ended.code == 0 and "of simulated time for" in ended.out
    stopped = hanse("run", experiment_file, *common, "output_dir=few")
    assert stopped.code and "silo-3 did not answer in time" in stopped.out + stopped.err


def test_without_links_nothing_is_predicted(experiment_file: Path) -> None:
    assert estimate.preview(load(experiment_file)).links is None
