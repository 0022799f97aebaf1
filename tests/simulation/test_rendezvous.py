"""Functions that wait for each other, and what becomes of them."""

from collections.abc import Callable, Sequence

import pytest

from hanse.simulation.rendezvous import Rendezvous


class Bench:
    """Adds up what is brought at the same time, and notes it."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.place = Rendezvous(self.work)

    def work(self, jobs: Sequence[int]) -> list[int]:
        self.seen.append(list(jobs))
        return [job + sum(jobs) for job in jobs]

    def caller(self, *jobs: int) -> Callable[[], list[int]]:
        return lambda: [self.place.meet(job) for job in jobs]


def test_all_meet_and_those_left_meet_again() -> None:
    bench = Bench()
    answers = bench.place.run([bench.caller(1, 10), bench.caller(), bench.caller(2), lambda: "x"])
    assert bench.seen == [[1, 2], [10]]
    assert answers == [[4, 20], [], [5], "x"]


def test_outside_a_job_is_done_at_once() -> None:
    bench = Bench()
    assert bench.place.meet(3) == 6
    assert bench.place.run([]) == []


def test_one_runs_at_a_time_in_order() -> None:
    bench, said = Bench(), []

    def call(name: int) -> None:
        said.append((name, "before"))
        bench.place.meet(name)
        said.append((name, "after"))

    bench.place.run([lambda: call(1), lambda: call(2)])
    assert said == [(1, "before"), (2, "before"), (1, "after"), (2, "after")]


def test_an_error_reaches_the_caller_and_the_others_clean_up() -> None:
    bench, left = Bench(), []

    def waits() -> None:
        try:
            bench.place.meet(1)
        finally:
            left.append("waits")

    def fails() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        bench.place.run([waits, fails])
    assert left == ["waits"] and bench.seen == []


def test_an_error_of_the_work_reaches_the_caller() -> None:
    def work(jobs: Sequence[int]) -> list[int]:
        raise MemoryError

    place: Rendezvous[int, int] = Rendezvous(work)
    with pytest.raises(MemoryError):
        place.run([lambda: place.meet(1), lambda: place.meet(2)])
