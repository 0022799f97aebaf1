"""The choice of a search, and sentences on how far its evidence goes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.planning.search.settings import Choice, Setting
from hanse.planning.search.trial import SiloScore
from hanse.planning.search.winner import difference, evidence, winner

pytest.importorskip("optuna")

from hanse.planning.search.search import Search
from hanse.planning.search.study import Trial


def _scores(*values: float, rows: float = 10) -> dict[str, SiloScore]:
    return {f"silo-{n}": SiloScore(value, rows) for n, value in enumerate(values, 1)}


def _trial(number: int, rate: float, *values: float, rung: int = 3, own: bool = False) -> Trial:
    adapter, algorithm = Choice("lora", {"lora": {}}), Choice("fedavg", {"fedavg": {}})
    scores = {rung: _scores(*values)} if values else {}
    state = "complete" if rung == 3 else "pruned"
    return Trial(number, Setting(adapter, algorithm, rate, own), scores, state)


@pytest.fixture
def found(experiment_file: Path) -> Search:
    trials = [
        _trial(0, 1e-3, 0.5, 0.4, 0.6, rung=1, own=True),
        _trial(1, 3e-3, 0.80, 0.81, 0.79),
        _trial(2, 1e-2, 0.60, 0.62, 0.58),
    ]
    return Search(load(experiment_file), trials, [1, 3], "accuracy", [], Path("x"))


def _said(search: Search) -> str:
    return "\n".join(evidence(search, winner(search)))


def test_the_interval_is_students_over_silos_of_equal_rows() -> None:
    first, second = [0.8, 0.7, 0.9, 0.6], [0.7, 0.5, 0.85, 0.61]
    lead = difference(_scores(*first), _scores(*second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert lead is not None
    assert (lead.low, lead.high) == pytest.approx((expected.low, expected.high))
    assert lead.value == pytest.approx(np.mean(first) - np.mean(second))


def test_silos_with_more_rows_weigh_more() -> None:
    first = {"a": SiloScore(1.0, 30), "b": SiloScore(0.0, 10)}
    second = {"a": SiloScore(0.0, 30), "b": SiloScore(0.0, 10)}
    lead = difference(first, second)
    assert lead is not None and lead.value == pytest.approx(0.75)


def test_equal_differences_and_single_silos_say_nothing_about_chance() -> None:
    assert difference(_scores(0.5, 0.6), _scores(0.5, 0.6)) is None
    assert difference(_scores(0.5), _scores(0.1)) is None


def test_a_clear_lead_inside_the_grid_is_said_without_a_warning(found: Search) -> None:
    said = _said(found)
    assert "trial 2 (lora, fedavg, 0.003) has the best accuracy after round 3, 0.8" in said
    assert "on 30 rows that 3 silos hold out; only scores have left them" in said
    assert "which is more than chance between silos" in said and "warning" not in said
    assert "own settings are trial 1, with accuracy 0.5 after round 1, and was stopped" in said


def test_a_lead_within_the_noise_is_said(found: Search) -> None:
    close = _trial(2, 1e-2, 0.90, 0.62, 0.85)
    said = _said(replace(found, trials=[*found.trials[:2], close]))
    assert "(paired by silo), which is within the noise, so take the cheaper of both" in said


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (1e-1, "0.1 is the largest learning rate that was tried with lora, so a larger one may"),
        (1e-4, "0.0001 is the smallest learning rate that was tried with lora, so a smaller one"),
    ],
)
def test_a_best_rate_at_the_edge_of_the_grid_is_a_warning(
    found: Search, rate: float, said: str
) -> None:
    best = _trial(1, rate, 0.9, 0.9, 0.91)
    assert f"warning: {said}" in _said(
        replace(found, trials=[found.trials[0], best, found.trials[2]])
    )


def test_losses_are_better_if_smaller(found: Search) -> None:
    assert winner(replace(found, metric="loss")).trial.number == 2


def test_a_search_without_a_whole_trial_is_refused(found: Search) -> None:
    failed = replace(_trial(0, 1e-3), state="fail", reason="it diverged")
    with pytest.raises(UserError, match="no trial of x has all 3 rounds: it diverged"):
        winner(replace(found, trials=[failed]))


@pytest.mark.parametrize(("same", "warned"), [(2, False), (3, True)])
def test_trials_that_have_learned_nothing_at_the_first_rung_are_a_warning(
    found: Search, same: int, warned: bool
) -> None:
    alike = [_trial(10 + n, 1e-3, 0.5, 0.5, 0.5, rung=1) for n in range(same)]
    unlike = [_trial(20 + n, 1e-3, 0.5 + 0.01 * n, 0.5, 0.6, rung=1) for n in range(1, 9)]
    text = _said(replace(found, trials=[*found.trials[1:], *alike, *unlike]))
    assert (f"{same} of {same + 8} trials have the same accuracy after round 1, 0.5," in text) == (
        warned
    )


def test_trials_that_have_learned_everything_at_the_first_rung_are_no_warning(
    found: Search,
) -> None:
    perfect = [_trial(10 + n, 1e-3, 1.0, 1.0, 1.0, rung=1) for n in range(4)]
    assert "learned nothing" not in _said(replace(found, trials=[*found.trials[1:], *perfect]))
