"""Learning rates of the benchmarks: shared, chosen on several deals, checked against the base."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import rates
from many_runs import Task
from protocol import Kept
from rates import WORST, Choice, Family, Rates, Score, rate_at, search


def test_there_are_two_rates_in_a_decade() -> None:
    assert [rate_at(place) for place in range(-8, 2)] == [
        *(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    ]


def _peak(best: float) -> Choice:
    def scored(some: Sequence[float]) -> list[Score]:
        return [(-abs(rate - best), 0.0) for rate in some]

    return search(1e-3, scored)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1e-3, [3e-4, 1e-3, 3e-3]),
        (3e-3, [3e-4, 1e-3, 3e-3, 1e-2]),
        (1e-4, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]),
        (3e-2, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]),
    ],
)
def test_the_grid_is_widened_until_the_best_is_inside(best: float, tried: list[float]) -> None:
    found = _peak(best)
    assert (found.rate, found.inside, list(found.tried)) == (best, True, tried)


def test_a_search_without_an_end_says_so() -> None:
    found = _peak(1e9)
    assert (found.rate, found.inside) == (max(found.tried), False)


def test_a_rate_at_which_training_diverges_is_the_worst() -> None:
    def scored(some: Sequence[float]) -> list[Score]:
        return [WORST if rate > 1e-3 else (0.6, -0.7) for rate in some]

    found = search(1e-3, scored)
    assert found.rate <= 1e-3
    assert not found.tried[3e-3][0]


class Asked:
    """Workers that only note what they are asked for."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def finish(self, tasks: Iterable[Task]) -> None:
        self.runs += [task.folder.name for task in tasks]


# Accuracy by method and rate on three deals, in hundredths. On the first deal alone 0.003 would be
# the best rate of `one`, and over all deals of `one` alone, too; of both judges it is 0.001.
SCORES = {
    ("one", 3e-4): (50, 50, 50),
    ("one", 1e-3): (70, 71, 72),
    ("one", 3e-3): (90, 65, 70),
    ("two", 3e-4): (50, 50, 50),
    ("two", 1e-3): (60, 70, 80),
    ("two", 3e-3): (55, 50, 45),
    ("other", 1e-3): (70, 60, 50),  # as good as the base model
    ("better", 1e-3): (70, 60, 51),
    ("base", 0.0): (60, 60, 60),
}
FAMILIES = {"both": Family(1e-3, ("one", "two"))}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rates:
    def task(name: str, rate: float, seed: int) -> Task:
        return Task(tmp_path / f"{name} {rate} {seed}", file, ())

    def validated(done: Task, personal: bool) -> Score:
        name, rate, seed = done.folder.name.split()
        return SCORES[name, float(rate)][int(seed)] / 100, 0.0

    file = tmp_path / "an.yaml"
    file.write_text("")
    monkeypatch.setattr(rates, "validated", validated)
    family_of = dict.fromkeys(("one", "two", "other", "better"), "both")
    kept = Kept("table", {})
    workers: Any = Asked()
    return Rates(
        FAMILIES, family_of, task, lambda seed: task("base", 0.0, seed), (0, 1, 2), kept, workers
    )


def test_a_family_has_the_rate_of_the_highest_mean_of_its_judges_over_the_deals(
    table: Rates,
) -> None:
    found = table.chosen("both")
    assert found["rate"] == 1e-3
    assert found["tried"]["0.003"] == pytest.approx((90 + 65 + 70 + 55 + 50 + 45) / 600)
    assert len(table.workers.runs) == 3 * 2 * 3


def test_a_method_that_is_not_above_the_base_has_no_result(table: Rates) -> None:
    found = table.validated(["one", "other", "better"])
    assert {name: row["no_result"] for name, row in found.items()} == {
        "one": None,
        "other": "is not above the base model on validation",
        "better": None,
    }
    assert {row["rate"] for row in found.values()} == {1e-3}
    assert found["other"]["base"] == pytest.approx(0.6)


def test_at_the_end_of_a_search_there_is_no_result(
    table: Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "WIDENED", -1)
    monkeypatch.setitem(SCORES, ("two", 3e-3), (90, 90, 90))
    assert (table.chosen("both")["rate"], table.chosen("both")["inside"]) == (3e-3, False)
    assert "the last that was tried" in table.validated(["one"])["one"]["no_result"]


def test_what_is_kept_is_not_done_again(table: Rates) -> None:
    first = table.validated(["one", "better"])
    asked = len(table.workers.runs)
    again: Any = Asked()
    kept = Kept("table", {})  # read from its file
    later = Rates(FAMILIES, table.family_of, table.tuning, table.untrained, (0, 1, 2), kept, again)
    assert later.validated(["one", "better"]) == first
    assert (again.runs, asked > 0) == ([], True)


def test_another_protocol_is_begun_anew(table: Rates) -> None:
    table.validated(["one"])
    assert "families" not in Kept("table", {"deals": [7]}).content
