"""What is known of a run at each moment, and what can honestly be said of its end."""

import pytest

from hanse.cli.progress import phrases
from hanse.cli.progress.state import ProgressState, Traffic
from hanse.observability.steps import (
    Activity,
    ClientReplies,
    FinishedRound,
    Rounds,
    Runs,
    SiloActivity,
    SiloState,
    Step,
    Training,
    WaitingForSilos,
    Work,
)


def _state(*steps: tuple[float, Step]) -> ProgressState:
    state = ProgressState(0.0, 0.0)
    for now, step in steps:
        state.update(step, now)
    return state


def _round(done: int, seconds: float | None = None, total: int = 4) -> Step:
    return Rounds(done, total, FinishedRound(seconds, 100.0, 40.0) if seconds is not None else None)


def _answered(done: int, phase: str = "train") -> Step:
    return ClientReplies(phase, done, 4, 100.0, 10.0 * done)


def _scoring(done: int) -> Step:
    return Work(Activity.SCORING, "test", done, 9)


def _waiting(*silos: tuple[str, float]) -> Step:
    gone = tuple(SiloActivity(name, SiloState.GONE, seconds) for name, seconds in silos)
    return WaitingForSilos(gone, 2)


BEGUN = [(0.0, _round(0)), (30.0, _round(0, 30.0))]  # the base model was scored in 30 seconds
FIRST = [(30.0, _answered(0)), (50.0, _answered(2))]
SCORING = [(150.0, _round(3, 40.0)), (150.0, _answered(0)), (190.0, _answered(4))]


def test_nothing_is_promised_before_there_is_something_to_tell_it_from() -> None:
    assert _state().left(9.0) is None
    assert _state((1.0, Work(Activity.LOADING_MODEL, "a"))).left(9.0) is None
    assert _state(*BEGUN[:1], (3.0, _scoring(7))).left(9.0) is None
    assert _state(*BEGUN).left(31.0) is None
    assert _state(*BEGUN, FIRST[0], (31.0, Training(("a",), 1, 100))).left(31.0) is None
    assert phrases.left(_state(*BEGUN), 31.0) == "–"


@pytest.mark.parametrize(
    ("told", "now", "left"),
    [
        # Half of the first round took 20 seconds: 3.5 rounds of 40, and the scoring once more.
        ([*BEGUN, *FIRST], 50.0, 3.5 * 40 + 30),
        # The third client is halfway.
        ([*BEGUN, *FIRST, (55.0, Training(("c",), 3, 6))], 55.0, 3.375 * 40 + 30),
        # After the first round its length counts, its part after the training included.
        ([*BEGUN, *FIRST, (80.0, _round(1, 50.0))], 80.0, 3 * 50 + 30),
        ([*BEGUN, (80.0, _round(1, 50.0)), (150.0, _round(2, 70.0))], 150.0, 2 * 60 + 30),
        # After the last training, the scoring alone.
        ([*BEGUN, *SCORING], 200.0, 20.0),
        # The phases of an aggregator that come after it take no time that matters.
        ([*BEGUN, *SCORING, (195.0, _answered(2, "unmask"))], 200.0, 20.0),
        # Then the clients score, too: a quarter of them took ten seconds.
        ([*BEGUN, *SCORING, (230.0, _answered(0, "evaluate"))], 235.0, None),
        (
            [
                *BEGUN,
                *SCORING,
                (230.0, _answered(0, "evaluate")),
                (240.0, _answered(1, "evaluate")),
            ],
            240.0,
            30.0,
        ),
        # Whoever is late says nothing rather than "0 s".
        ([*BEGUN, *SCORING], 230.0, None),
        ([*BEGUN, (240.0, _round(4, 40.0))], 240.0, None),
    ],
)
def test_the_time_left(told: list[tuple[float, Step]], now: float, left: float | None) -> None:
    assert _state(*told).left(now) == (None if left is None else pytest.approx(left))


def test_a_resumed_run_knows_the_rounds_before() -> None:
    state = _state((0.0, _round(0)), (0.0, _round(0, 30.0)), (0.0, _round(1, 50.0)))
    assert state.left(1.0) == pytest.approx(3 * 50 + 30)
    assert state.traffic == Traffic(200.0, 80.0)


def test_phases_of_an_aggregator_are_not_taken_for_training() -> None:
    keys = [(30.0, _answered(0, "keys")), (31.0, _answered(4, "keys"))]
    state = _state(*BEGUN, *keys)
    assert state.share == 0.0 and state.left(31.0) is None
    state = _state(*BEGUN, *keys, (31.0, _answered(0)), (41.0, _answered(2)))
    assert state.share == 0.5
    state.update(_answered(4), 50.0)
    state.update(_answered(0, "unmask"), 50.0)
    assert state.share == 1.0


def test_bytes_are_counted_once() -> None:
    state = _state(*BEGUN, *FIRST)
    assert state.traffic == Traffic(200.0, 60.0)  # round 0, and the exchange so far
    state.update(_answered(0, "evaluate"), 60.0)
    assert state.traffic == Traffic(300.0, 60.0)
    state.update(_round(1, 50.0), 70.0)
    assert state.traffic == Traffic(200.0, 80.0)


def test_another_run_of_the_same_command_begins_afresh() -> None:
    state = _state(*BEGUN, (80.0, _round(1, 50.0)), (90.0, Runs(1, 3)), (91.0, _round(0)))
    assert state.left(92.0) is None and state.traffic == Traffic()
    assert state.runs is not None


def test_work_has_lasted_since_it_began() -> None:
    state = _state((5.0, _scoring(0)), (8.0, _scoring(4)))
    assert state.since == 5.0
    state.update(_scoring(0), 11.0)  # of another model
    assert state.since == 11.0
    state.update(Work(Activity.SAVING_ROUND), 12.0)
    assert state.since == 12.0


def test_work_that_is_said_again_and_again_has_lasted_since_it_was_said_first() -> None:
    state = ProgressState(0.0, 0.0)
    for now in range(10, 60):
        state.update(_waiting(("b", now)), now)
    assert state.since == 10
    told = phrases.line(state, 59.0).replace("\N{NBSP}", " ")
    assert told == "waiting for 1 of 2: b (b gone, last seen 59 s ago) (49 s)"
    state.update(_waiting(("a", 1), ("b", 9)), 120.0)
    assert state.since == 120
    for done in (0, 5, 9, 0):  # the same loop begins anew
        state.update(Training(("a",), done, 9), 130.0 + done)
    state.update(Training(("a",), 0, 9), 150.0)
    assert state.since == 130.0


def test_a_line_says_where_it_is() -> None:
    training = Training(("silo-2",), 12, 29, 0.6123, 1234.0)
    told = [*BEGUN, (30.0, _answered(0)), (40.0, training)]
    line = phrases.line(_state(*told), 75.0).replace("\N{NO-BREAK SPACE}", " ")
    assert line.startswith("round 1 of 4: training silo-2, step 12 of 29, loss 0.612 (35 s)")
    assert line.endswith("left")
    assert phrases.line(_state(), 3.0).startswith("working (3")
    assert "1,234 tokens/s" in phrases.numbers(_state(*told))


def test_a_count_has_its_unit() -> None:
    assert phrases.count(Work(Activity.SENDING_FILE, "a to b", 40, 1200, "MB")) == "40 of 1,200 MB"
    assert phrases.count(Work(Activity.SCORING, "test", 1, 2)) == "1 of 2"
