"""The time of evaluation that hanse check predicts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task
from hanse.journal.run_folder import Journal
from hanse.planning.preview import scoring_time
from hanse.simulation.in_process import in_process


@dataclass(frozen=True)
class Slow(Task):
    """Takes two seconds for each token, or for each answer if it is costly."""

    clock: list[float]
    costly: bool = False
    limit: int | None = None
    example_kind = "label_words"

    @property
    def test_only(self) -> bool:
        return self.costly

    def evaluate(self, learner: Learner, split: str) -> Scores:
        scored = learner.examples(split)[: self.limit]
        self.clock[0] += 2 * (len(scored) if self.costly else sum(map(len, scored)))
        return Scores({}, [])


@pytest.mark.parametrize("test", ["true", "final", "false"])
@pytest.mark.parametrize(("costly", "limit"), [(False, None), (True, 7), (True, 20), (False, 9)])
@pytest.mark.parametrize(("every", "looks"), [(0, {5}), (2, {0, 2, 4, 5}), (5, {0, 5})])
def test_scoring_takes_as_long_as_its_splits_are(
    experiment_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: str,
    costly: bool,
    limit: int | None,
    every: int,
    looks: set[int],
) -> None:
    words = ["rounds=5", f"evaluation.validate_every={every}", f"evaluation.test={test}"]
    simulation = simulate(load(experiment_file, words))
    journal = Journal(tmp_path)
    clock = [0.0]
    task = Slow(clock, costly, limit)
    run = replace(
        simulation.run(journal, in_process(simulation, journal.folder)), tasks={"slow": task}
    )
    monkeypatch.setattr(scoring_time.time, "perf_counter", lambda: clock[0])
    predicted = scoring_time.scoring_seconds(simulation, run)
    journal.close()

    def spent(split: Any) -> int:
        return len(split[:limit]) if costly else sum(map(len, split[:limit]))

    tests, validation = (simulation.learner.examples(name) for name in ("test", "validation"))
    amount = {"true": 2, "final": 1, "false": 0}[test] * spent(tests)
    if not costly:
        amount += len(looks) * spent(validation)
        amount += sum(spent(silo.examples["test"]) for silo in simulation.clients.values())
    assert predicted == pytest.approx(2 * amount)


@pytest.mark.parametrize(("most", "timings"), [(1e9, 2), (1.0, 1)])
def test_a_long_first_timing_is_not_repeated(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, most: float, timings: int
) -> None:
    simulation = simulate(load(experiment_file))
    clock = [0.0]
    monkeypatch.setattr(scoring_time.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(scoring_time, "SECONDS", most)
    monkeypatch.setattr(scoring_time, "SCORED", 1e12)  # there is no larger sample
    test = simulation.learner.examples("test")
    assert scoring_time._seconds_each(Slow(clock), simulation, test) == 2
    sample = test[:: len(test) // scoring_time.FIRST]
    assert clock[0] == timings * 2 * sum(map(len, sample))
