"""Conditions of rings, and the tails of hypergeometric distributions that they rest on."""

import random
from fractions import Fraction
from itertools import combinations, product
from math import comb, inf, log2

import pytest

from hanse.federation.secure_sums.ring import (
    Ring,
    least_neighbours,
    log_tail,
    rounded_down,
    smallest_ring,
)


def _exact(population: int, marked: int, drawn: int, least: int) -> float:
    ways = sum(
        comb(marked, i) * comb(population - marked, drawn - i)
        for i in range(least, min(marked, drawn) + 1)
    )
    return log2(ways) - log2(comb(population, drawn)) if ways else -inf


@pytest.mark.parametrize("population", [1, 2, 7, 30, 1000])
def test_tails_are_upper_bounds_and_tight(population: int) -> None:
    draws = random.Random(population)
    for _ in range(300):
        marked, drawn = draws.randint(0, population), draws.randint(0, population)
        least = draws.randint(0, population + 1)
        found, right = (
            log_tail(population, marked, drawn, least),
            _exact(population, marked, drawn, least),
        )
        assert found >= min(right, 0.0)
        if least * population > marked * drawn:
            assert found == right or found - right < 3e-6


def test_tails_count_what_a_draw_counts() -> None:
    clients = [True] * 4 + [False] * 5
    hits = [sum(drawn) >= 3 for drawn in combinations(clients, 5)]
    assert log_tail(9, 4, 5, 3) == pytest.approx(log2(sum(hits) / len(hits)), abs=3e-6)


def test_a_tail_far_below_the_smallest_float_is_not_zero() -> None:
    found = log_tail(10_000, 2_000, 3_000, 2_000)
    assert -inf < found < -1100 and found == pytest.approx(_exact(10_000, 2_000, 3_000, 2_000))
    assert log_tail(10_000, 2_000, 3_000, 2_001) == -inf


@pytest.mark.parametrize(
    ("clients", "published", "ours"),
    [(32, 8, 12), (100, 24, 34), (1_000, 57, 118), (10_000, 67, 152)],
)
def test_neighbours_of_the_published_conditions_and_of_ours(
    clients: int, published: int, ours: int
) -> None:
    assert least_neighbours(clients, 0.2, 0.05, equivocation=False) == published
    assert least_neighbours(clients, 0.2, 0.05) == ours


def test_a_ring_meets_its_conditions_exactly_and_a_smaller_one_does_not() -> None:
    for clients, c, d in [(60, 12, 3), (150, 30, 7), (400, 40, 40)]:
        ring = Ring(clients, c, d, 40, 30)
        found = smallest_ring(ring)
        assert found is not None and _holds(ring, *found)
        assert not _holds(ring, found[0], found[1] - 1)
        smaller = [(k, t) for k in range(2, found[0], 2) for t in range(k + 2)]
        assert not any(_holds(ring, k, t) for k, t in smaller)
        least, most = ring.thresholds(found[0])
        assert [t for t in range(found[0] + 2) if _holds(ring, found[0], t)] == list(
            range(least, most + 1)
        )


def _holds(ring: Ring, k: int, t: int) -> bool:
    """The three conditions in whole numbers."""
    few = _part(ring.clients - 1, ring.dropouts, k, k - t + 1)
    return (
        max(_pair(ring, k, t), _cut(ring, k, t)) * 2 ** (ring.security + 1) <= 1
        and ring.clients * few * 2**ring.correctness <= 1
    )


def _pair(ring: Ring, k: int, t: int) -> Fraction:
    others = ring.clients - ring.dropouts - 1
    return ring.clients * _part(others, ring.colluders, k, 2 * t - k - 1)


def _cut(ring: Ring, k: int, t: int) -> Fraction:
    m, c, half = ring.clients - ring.dropouts, ring.colluders, k // 2
    one, both = _part(m, c, half, t - half - 1), _part(m, c, k, 2 * (t - half - 1))
    return Fraction(m * m, 2) * min(one**2, both)


def test_the_odds_of_a_ring_are_those_of_its_conditions() -> None:
    draws = random.Random(7)
    for _ in range(2_000):
        n, d = draws.randint(6, 60), draws.randint(0, 2)
        ring = Ring(n, draws.randint(0, n // 3), d, 40, 30)
        k = draws.choice(ring.degrees)
        t = draws.randint(0, k + 2)
        for bound, right in [
            (ring.log_pair(k, t), _pair(ring, k, t)),
            (ring.log_cut(k, t), _cut(ring, k, t)),
        ]:
            assert bound == pytest.approx(log2(right) if right else -inf, abs=1e-5)
    assert Ring(60, 12, 3, 40, 30).safe(24, 24) and not Ring(60, 12, 3, 40, 30).safe(24, 14)


def _part(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """The part of all draws with so many marked ones at least; 1 where these are no exception."""
    if least * population <= marked * drawn:
        return Fraction(1)
    most = min(marked, drawn)
    ways = (comb(marked, i) * comb(population - marked, drawn - i) for i in range(least, most + 1))
    return Fraction(sum(ways), comb(population, drawn))


@pytest.mark.parametrize(("m", "t"), [(8, 4), (8, 5), (9, 4), (9, 5)])
def test_a_piece_of_the_ring_is_cut_off_only_between_colluders(m: int, t: int) -> None:
    """Every set of colluders and of honest clients that reveal, on rings of four neighbours.

    The server learns the sum of a piece if t holders reveal for each of its clients, and no
    client outside reveals beside it (whose masks would stay).
    """
    cuts = 0
    near = {i: {(i + step) % m for step in (-2, -1, 0, 1, 2)} for i in range(m)}
    for roles in product("chd", repeat=m):  # colluder, honest and revealing, dropped
        bad = {i for i in range(m) if roles[i] == "c"}
        reveal = {i for i in range(m) if roles[i] == "h"}
        if any(2 * t <= 5 + len(near[i] & bad) for i in range(m) if i not in bad):
            continue  # the server gets both secrets of one: condition 1
        for piece in _pieces(reveal, near):
            if all(len(near[i] & (reveal | bad)) >= t for i in piece) and piece != reveal:
                blocks = [{i, (i + 1) % m} for i in range(m)]
                full = [block for block in blocks if len(block & bad) >= t - 3]
                assert any(not a & b for a, b in combinations(full, 2))
                cuts += 1
    assert cuts or t > 4


def _pieces(members: set[int], near: dict[int, set[int]]) -> list[set[int]]:
    left, found = set(members), []
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            piece |= edge
            edge = {j for i in edge for j in near[i] & left}
            left -= edge
        found.append(piece)
    return found


def test_more_trouble_takes_more_neighbours() -> None:
    for values in (
        [least_neighbours(1_000, share, 0.05) for share in (0.0, 0.05, 0.1, 0.2, 0.3)],
        [least_neighbours(1_000, 0.2, share) for share in (0.0, 0.02, 0.05, 0.1)],
        [least_neighbours(1_000, 0.2, 0.05, bits) for bits in (20, 40, 60, 80)],
        [least_neighbours(1_000, 0.2, 0.05, 40, bits) for bits in (10, 30, 60)],
        [least_neighbours(n, 0.2, 0.05) for n in (60, 100, 200, 1_000, 10_000)],
    ):
        assert values == sorted(values) and values[0] < values[-1]


def test_shares_are_rounded_as_they_are_written() -> None:
    assert [rounded_down(0.29, 100), rounded_down(0.2, 11), rounded_down(4 / 11, 11)] == [29, 2, 4]
    assert all(rounded_down(k / n, n) == k for n in range(1, 200) for k in range(n))
