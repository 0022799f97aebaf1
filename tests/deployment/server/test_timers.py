"""When nodes are greeted, and how long a round pauses."""

import math

from hanse.deployment.server.timers import NodeTimers, RoundPauses


def test_a_hello_without_answer_is_repeated_after_twice_as_long_each_time() -> None:
    timers = NodeTimers()
    timers.set_nodes([7], 100.0)
    assert timers.expired(100.0) == [7]
    timers.hello_sent(7, 100.0)
    assert (timers.expired(129.0), timers.expired(130.0)) == ([], [7])
    timers.hello_sent(7, 130.0)
    assert (timers.expired(189.0), timers.expired(190.0)) == ([], [7])
    timers.answered(7)
    assert timers.due == {7: math.inf}
    timers.call_if_idle(7, 200.0)
    timers.hello_sent(7, 200.0)
    assert timers.due == {7: 230.0}, "the timeout begins anew after an answer"


def test_a_node_whose_answers_are_refused_is_greeted_later_and_later_up_to_a_minute() -> None:
    timers = NodeTimers()
    timers.set_nodes([7], 0.0)
    delays = []
    for _ in range(6):
        timers.refusals[7] += 1
        timers.failed(7, 0.0)
        delays.append(timers.due[7])
    assert delays == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_node_that_is_gone_has_no_timer() -> None:
    timers = NodeTimers()
    timers.set_nodes([7, 8], 0.0)
    timers.refusals[7] += 1
    timers.set_nodes([8], 1.0)
    timers.call(7, 2.0)
    timers.hello_sent(7, 2.0)
    timers.failed(7, 2.0)
    assert timers.due == {8: 0.0}
    assert not timers.refusals


def test_pauses_of_a_round_double_up_to_five_minutes() -> None:
    pauses = RoundPauses()
    assert [pauses.next(3) for _ in range(8)] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert pauses.next(4) == 5.0
