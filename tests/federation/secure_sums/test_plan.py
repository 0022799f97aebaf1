"""Plans of secure sums: thresholds, graphs, refusals, and the sentences about them."""

import random
import time
from collections.abc import Iterator
from itertools import product

import pytest

from hanse.errors import UserError
from hanse.federation.secure_sums.plan import Plan, graph, plan
from hanse.federation.secure_sums.ring import Ring, smallest_ring


def _seen(n: int, c: int, t: int) -> Iterator[tuple[int, int]]:
    """Shares of client 0's two secrets that a server can get, over all lists that it may send.

    The colluders sign every list and give shares of both secrets; each honest client signs one
    list, with client 0 or without it, and reveals under it if t clients have signed the same.
    """
    for choice in product((True, False), repeat=n - c - 1):
        kept = [True, *choice]  # client 0 signs no list without itself
        yes, no = kept.count(True), kept.count(False)
        yield (c + yes * (yes + c >= t), c + no * (no + c >= t))


@pytest.mark.parametrize("n", range(3, 10))
def test_no_server_gets_both_secrets(n: int) -> None:
    for c, d in product(range(n - 1), range(n)):
        try:
            found = plan(n, c / n, d / n, neighbours="complete")
        except UserError:
            assert n <= c + 2 * d or (n, c, d) == (3, 0, 1)
            continue
        t = found.threshold
        assert (found.neighbours, found.complete) == (n - 1, True)
        assert not any(min(both) >= t for both in _seen(n, c, t))
        assert t == 3 or any(min(both) >= t - 1 for both in _seen(n, c, t - 1))
        assert found.tolerated >= d and n - d >= t
        # The survivors, all colluders among them, are two honest clients at least.
        assert t - c >= 2 and t >= 3


def test_a_round_on_a_ring_survives_its_drop_outs() -> None:
    """With odds of 2^-4 instead of 2^-30, so that failures are seen; the bound is not exceeded."""
    found = plan(100, 0.1, 0.1, security=10, correctness=4)
    draws = random.Random(1)
    names = [str(i) for i in range(100)]
    lost = 0
    for _ in range(200):
        dropped = set(draws.sample(names, found.dropouts))
        holders = graph(names, found, draws).values()
        lost += any(len(set(near) - dropped) < found.threshold for near in holders)
    assert not found.complete and lost <= 200 / 16 + 10


def test_a_plan_is_quick_at_ten_thousand() -> None:
    smallest_ring.cache_clear()
    begin = time.process_time()
    plan(10_000, 0.2, 0.05)
    assert time.process_time() - begin < 0.3


def test_the_complete_graph_where_a_ring_saves_less_than_half() -> None:
    assert plan(20, 0.2, 0.05).complete and plan(10_000, 0.3, 0.349).complete
    found = plan(100, 0.2, 0.05)
    assert (found.neighbours, found.quorum, found.colluders, found.dropouts) == (34, 95, 20, 5)
    assert found.tolerated == 34 - found.threshold
    assert plan(100, 0.2, 0.05, threshold=65).complete
    assert plan(100, 0.2, 0.05, neighbours=200).complete
    assert (plan(100, 0.2, 0.0).quorum, plan(20, 0.2, 0.0).dropouts) == (99, 0)


def test_a_given_degree() -> None:
    found = plan(100, 0.2, 0.05, neighbours=40)
    least, most = Ring(100, 20, 5, 40, 30).thresholds(40)
    assert (found.neighbours, found.threshold) == (40, least) and least < most
    assert plan(100, 0.2, 0.05, threshold=most, neighbours=40).threshold == most
    for degree, threshold, words in [
        (41, None, r"even number of neighbours from 2 to 92; set it to such"),
        (94, None, r"from 2 to 92"),
        (0, None, r"neighbours is 0"),
        (10, None, r"too few for 20 colluding silos and 5 that drop out of 100; .* at least 34"),
        (40, least - 1, rf"from {least} to {most}; set it"),
        (40, most + 1, rf"from {least} to {most}; set it"),
    ]:
        with pytest.raises(UserError, match=words):
            plan(100, 0.2, 0.05, threshold=threshold, neighbours=degree)


def test_seven_of_eleven() -> None:
    found = plan(11, 0.2, 4 / 11, threshold=7)
    assert (found.threshold, found.neighbours, found.tolerated, found.quorum) == (7, 10, 4, 7)
    assert found == plan(11, 0.2, 4 / 11)
    assert found.sentence() == (
        "11 silos, each of which shares its secrets with all others; 7 of 11 must answer in every "
        "phase, so 4 may drop out; the server sees no single update, even with the help of 2 silos"
    )


def test_the_sentence_of_a_ring() -> None:
    assert plan(1_000, 0.2, 0.05).sentence() == (
        "1000 silos, each of which shares its secrets with 118 others; of each silo and these 93 "
        "must answer in every phase; up to 50 silos may drop out, and a round then fails with a "
        "probability of at most 2^-30, less than once in 10^9 rounds; a server that draws the "
        "others at random, even with the help of 200 silos, sees a single update with a "
        "probability of at most 2^-40, less than once in 10^12 rounds; with the help of "
        "at most 66 silos no server does, however it draws"
    )


@pytest.mark.parametrize(
    ("clients", "colluders", "dropouts", "threshold", "words"),
    [
        (2, 0.0, 0.0, None, r"2 silos, .* tells each the other's; let at least 3"),
        (11, 0.2, 0.3, 12, r"threshold is 12, but only 11 .* from 7 to 8"),
        (11, 0.2, 0.3, 5, r"no majority of 11 .* two halves .* from 7 to 8"),
        (11, 0.2, 0.3, 6, r"2 silos of 11 may collude .* at least 7, or lower .*colluders"),
        (11, 0.2, 0.3, 9, r"3 of 11 silos may drop out .* at most 8, or lower .*dropouts"),
        (3, 0.0, 0.0, 2, r"sum of two .* at least 3"),
        (3, 0.0, 0.4, None, r"3 must answer, but 1 may drop out .* leaves 2"),
        (10, 0.4, 0.3, None, r"4 may collude .* 8 must answer, but 3 may .* leaves 7; lower"),
        (10, 0.9, 0.0, None, r"9 of 10 silos collude .* two honest silos"),
    ],
)
def test_refusals(
    clients: int, colluders: float, dropouts: float, threshold: int | None, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        plan(clients, colluders, dropouts, threshold=threshold)
    assert str(refusal.value).count(". ") == 0


@pytest.mark.parametrize(("count", "degree"), [(3, 2), (11, 10), (10, 4), (30, 6), (7, 6), (6, 4)])
def test_a_graph_is_regular_symmetric_and_connected(count: int, degree: int) -> None:
    names = [f"silo-{i}" for i in random.Random(3).sample(range(count), count)]
    found = graph(names, Plan(count, degree, degree), random.Random(5))
    assert list(found) == names
    for name, near in found.items():
        assert len(near) == len(set(near)) == degree and name not in near
        assert list(near) == [other for other in names if other in near]
        assert all(name in found[other] for other in near)
    reached = edge = {names[0]}
    while edge:
        edge = {other for name in edge for other in found[name]} - reached
        reached = reached | edge
    assert reached == set(names)


def test_a_graph_of_fewer_clients_than_planned() -> None:
    names = list("abcdef")
    ring = Plan(12, 4, 4)
    for count, degree in [(6, 4), (5, 4), (4, 3), (2, 1), (1, 0)]:
        found = graph(names[:count], ring, random.Random(2))
        assert {len(near) for near in found.values()} == {degree}
    assert set(map(len, graph(names, Plan(12, 7, 11), random.Random(2)).values())) == {5}


def test_a_graph_follows_its_generator_alone() -> None:
    names = [str(i) for i in range(40)]
    draws = [graph(names, Plan(40, 5, 6), random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]["0"]) != {"37", "38", "39", "1", "2", "3"}


def test_a_ring_of_odd_degree_is_a_defect() -> None:
    with pytest.raises(ValueError, match="as many"):
        Plan(10, 4, 5)


def test_more_colluders_take_a_greater_threshold() -> None:
    thresholds = [plan(20, c / 20, 0, neighbours="complete").threshold for c in range(12)]
    assert thresholds == [(20 + c) // 2 + 1 for c in range(12)]
