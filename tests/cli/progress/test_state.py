"""What is known of a run at each moment, and what can honestly be said of its end."""

import pytest

from hanse.cli.progress import phrases
from hanse.cli.progress.state import ProgressState, Sent
from hanse.observability.progress import Step


def _heard(*told: tuple[float, Step]) -> ProgressState:
    heard = ProgressState(0.0, 0.0)
    for now, step in told:
        heard.hear(step, now)
    return heard


def _round(done: int, seconds: float | None = None, total: int = 4) -> Step:
    numbers = {"seconds": seconds, "down": 100.0, "up": 40.0} if seconds is not None else {}
    return Step("rounds", done, total, numbers)


def _answered(done: int, kind: str = "train") -> Step:
    return Step(f"clients {kind}", done, 4, {"down": 100.0, "up": 10.0 * done})


BEGUN = [(0.0, _round(0)), (30.0, _round(0, 30.0))]  # the base model was scored in 30 seconds
FIRST = [(30.0, _answered(0)), (50.0, _answered(2))]
SCORING = [(150.0, _round(3, 40.0)), (150.0, _answered(0)), (190.0, _answered(4))]


def test_nothing_is_promised_before_there_is_something_to_tell_it_from() -> None:
    assert _heard().left(9.0) is None
    assert _heard((1.0, Step("loading a model"))).left(9.0) is None
    assert _heard(*BEGUN[:1], (3.0, Step("scoring test", 7, 9))).left(9.0) is None
    assert _heard(*BEGUN).left(31.0) is None
    assert _heard(*BEGUN, FIRST[0], (31.0, Step("training a", 1, 100))).left(31.0) is None
    assert phrases.left(_heard(*BEGUN), 31.0) == "–"


@pytest.mark.parametrize(
    ("told", "now", "left"),
    [
        # Half of the first round took 20 seconds: 3.5 rounds of 40, and the scoring once more.
        ([*BEGUN, *FIRST], 50.0, 3.5 * 40 + 30),
        # The third client is halfway.
        ([*BEGUN, *FIRST, (55.0, Step("training c", 3, 6))], 55.0, 3.375 * 40 + 30),
        # After the first round its length counts, its part after the training included.
        ([*BEGUN, *FIRST, (80.0, _round(1, 50.0))], 80.0, 3 * 50 + 30),
        ([*BEGUN, (80.0, _round(1, 50.0)), (150.0, _round(2, 70.0))], 150.0, 2 * 60 + 30),
        # After the last training, the scoring alone.
        ([*BEGUN, *SCORING], 200.0, 20.0),
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
    assert _heard(*told).left(now) == (None if left is None else pytest.approx(left))


def test_a_resumed_run_knows_the_rounds_before() -> None:
    heard = _heard((0.0, _round(0)), (0.0, _round(0, 30.0)), (0.0, _round(1, 50.0)))
    assert heard.left(1.0) == pytest.approx(3 * 50 + 30)
    assert heard.sent == Sent(200.0, 80.0)


def test_phases_of_an_aggregator_are_not_taken_for_training() -> None:
    keys = [(30.0, _answered(0, "keys")), (31.0, _answered(4, "keys"))]
    heard = _heard(*BEGUN, *keys)
    assert heard.share == 0.0 and heard.left(31.0) is None
    heard = _heard(*BEGUN, *keys, (31.0, _answered(0)), (41.0, _answered(2)))
    assert heard.share == 0.5
    heard.hear(_answered(4), 50.0)
    heard.hear(_answered(0, "unmask"), 50.0)
    assert heard.share == 1.0


def test_bytes_are_counted_once() -> None:
    heard = _heard(*BEGUN, *FIRST)
    assert heard.sent == Sent(200.0, 60.0)  # round 0, and the exchange so far
    heard.hear(_answered(0, "evaluate"), 60.0)
    assert heard.sent == Sent(300.0, 60.0)
    heard.hear(_round(1, 50.0), 70.0)
    assert heard.sent == Sent(200.0, 80.0)


def test_another_run_of_the_same_command_begins_afresh() -> None:
    heard = _heard(*BEGUN, (80.0, _round(1, 50.0)), (90.0, Step("runs", 1, 3)), (91.0, _round(0)))
    assert heard.left(92.0) is None and heard.sent == Sent()
    assert heard.runs is not None


def test_work_has_lasted_since_it_began() -> None:
    heard = _heard((5.0, Step("scoring test", 0, 9)), (8.0, Step("scoring test", 4, 9)))
    assert heard.since == 5.0
    heard.hear(Step("scoring test", 0, 9), 11.0)  # of another model
    assert heard.since == 11.0
    heard.hear(Step("saving"), 12.0)
    assert heard.since == 12.0


def test_work_that_is_said_again_and_again_has_lasted_since_it_was_said_first() -> None:
    heard = ProgressState(0.0, 0.0)
    for now in range(10, 60):
        heard.hear(Step("waiting for 1 of 2: b", detail=f"b gone, last seen {now} s ago"), now)
    assert heard.since == 10
    told = phrases.line(heard, 59.0).replace("\N{NBSP}", " ")
    assert told == "waiting for 1 of 2: b (b gone, last seen 59 s ago) (49 s)"
    heard.hear(Step("waiting for 2 of 2: a, b"), 120.0)
    assert heard.since == 120
    for done in (0, 5, 9, 0):  # the same loop begins anew
        heard.hear(Step("training a", done, 9), 130.0 + done)
    heard.hear(Step("training a", 0, 9), 150.0)
    assert heard.since == 130.0


def test_a_line_says_where_it_is() -> None:
    training = Step("training silo-2", 12, 29, {"loss": 0.6123, "tokens_per_second": 1234.0})
    told = [*BEGUN, (30.0, _answered(0)), (40.0, training)]
    line = phrases.line(_heard(*told), 75.0).replace("\N{NO-BREAK SPACE}", " ")
    assert line.startswith("round 1 of 4: training silo-2, step 12 of 29, loss 0.612 (35 s)")
    assert line.endswith("left")
    assert phrases.line(_heard(), 3.0).startswith("working (3")
    assert "1,234 tokens/s" in phrases.numbers(_heard(*told))
