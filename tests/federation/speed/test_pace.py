"""Paces: predictions are corrected once for each true change, whatever the noise."""

import random
from dataclasses import replace
from statistics import median

import pytest

from hanse.federation.speed.pace import FAR, IN_A_ROW, LEAST, MOST, OFF, Pace

EXPECTED, BOUND, STEPS = 10.0, 12.0, 40


def lived(speeds: list[float], seed: int, noise: float) -> tuple[list[Pace], list[float]]:
    """The paces after rounds at a client so many times as slow as expected, and their seconds."""
    draw, pace, paces, took = random.Random(seed), Pace(), [], []
    for slower in speeds:
        steps = max(1, int(pace.share * STEPS))
        took.append(EXPECTED * slower * steps / STEPS * draw.lognormvariate(0.0, noise))
        pace = pace.after(took[-1], EXPECTED, BOUND, steps)
        paces.append(pace)
    return paces, took


def corrections(paces: list[Pace]) -> list[int]:
    """The rounds after which the prediction was corrected, from 1 on."""
    before = [Pace(), *paces]
    return [n for n, own in enumerate(paces, 1) if own.slower != before[n - 1].slower]


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_50_rounds_corrects_nothing_and_each_true_change_once(seed: int) -> None:
    still, _ = lived([1.0] * 50, seed, noise=0.1)
    assert corrections(still) == [] and still[-1].share == 1
    paces, took = lived([1.0] * 20 + [2.5] * 20 + [1.0] * 10, seed, noise=0.1)
    assert corrections(paces) == [20 + IN_A_ROW, 40 + IN_A_ROW]
    assert paces[30].slower == pytest.approx(2.5, rel=0.25)
    assert median(took[24:40]) <= OFF * BOUND and paces[-1].share == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_profile_that_lies_is_corrected_after_its_first_round(seed: int) -> None:
    paces, took = lived([4.0] * 50, seed, noise=0.1)
    assert corrections(paces)[0] == 1 and len(corrections(paces)) <= 2
    assert took[0] > FAR * EXPECTED and median(took[10:]) <= OFF * BOUND
    assert paces[-1].share == pytest.approx(BOUND / EXPECTED / 4, rel=0.3)


def test_one_slow_round_among_confirmed_ones_and_others_to_both_sides_correct_nothing() -> None:
    paces, _ = lived([1.0, 3.0, 1.0, 1.5, 1.5, 0.6, 1.5, 1.5, 1.0], 0, noise=0.0)
    assert corrections(paces) == []
    assert corrections(lived([1.0, 1.5, 1.5, 1.5], 0, noise=0.0)[0]) == [4]


def test_steps_that_no_training_makes_do_not_stop_the_server() -> None:
    pace = Pace().after(10.0, EXPECTED, BOUND, steps=1e100)
    for seconds in (5e-324, 1e100):
        after = pace.after(seconds, EXPECTED, BOUND, steps=5e-324)
        assert Pace.of(after.numbers()) == after and 1 / MOST <= after.slower <= MOST


def test_rounded_steps_and_unknown_ones_are_no_deviation() -> None:
    pace = Pace().after(30.0, 10.0, 10.0, steps=3)
    assert (pace.slower, pace.share, pace.steps) == (3.0, pytest.approx(1 / 3), 3)
    for _ in range(5):  # one step of three takes 10 s
        assert (pace := pace.after(10.0, 10.0, 10.0, steps=1)).slower == 3.0
    silent = Pace().after(30.0, 10.0, 10.0, steps=0)
    assert silent.after(10.0, 10.0, 10.0, steps=0) == replace(silent, confirmed=True)


def test_what_a_hostile_client_reports_stays_within_bounds() -> None:
    pace = Pace()
    for measured, steps in ((1e100, 1), (1e-300, 1e100), (1e-300, 1e100), (1e-300, 1e100)) * 40:
        pace = pace.after(measured, 10.0, 10.0, steps)
        assert 0 < pace.slower < 1e5 and LEAST <= pace.share <= 1


def test_a_pace_is_read_again_from_its_numbers() -> None:
    pace = Pace(1.5, 0.5, 40.0, True, (1.4, 1.6))
    assert Pace.of(pace.numbers()) == pace


def test_a_correction_is_one_sentence_with_the_command_that_plans_anew() -> None:
    after = Pace().after(30.0, 10.0, 12.0, 40)
    assert after.change(Pace(), "silo-2", 10.0, 1) == (
        "after round 1, all steps of silo-2 take 30 s, not 10 s; it is asked for 40 % of its steps "
        "from now on, not 100 %. Ranks and batches stay as they are in a run; `hanse plan` with "
        "--slower silo-2=3 chooses them anew."
    )
