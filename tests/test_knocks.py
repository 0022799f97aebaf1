"""The judge of knocks tells clients that go in step from those that meet by chance."""

import random

import pytest

from knocks import least_probability, share, share_by_chance

SEEDS = 300


def _client(draw: random.Random) -> list[float]:
    """One that waits up to 1, 2, 4, … 20 s, as Flower's do, for 40 s; less the first 5 s."""
    times, at, most = list[float](), 0.0, 1.0
    while (at := at + draw.uniform(0, most)) < 40:
        times, most = [*times, at], min(2 * most, 20.0)
    return [at for at in times if at > 5]


def _four(seed: int, together: int = 0) -> dict[str, list[float]]:
    """Four clients, each with two loops that retry; the first few of them draw the same waits."""
    draws = [random.Random(seed * 10 + max(number, together)) for number in range(1, 5)]
    clients = {
        f"{number}": sorted(_client(draw) + _client(draw)) for number, draw in enumerate(draws)
    }
    return {
        name: [at + random.Random(f"{name}{at}").uniform(0, 0.02) for at in times]
        for name, times in clients.items()
        if times
    }


def test_independent_clients_meet_as_often_as_chance_says() -> None:
    found = [_four(seed) for seed in range(SEEDS)]
    met = sum(map(share, found)) / SEEDS
    assert met == pytest.approx(sum(map(share_by_chance, found)) / SEEDS, rel=0.25)
    assert all(share(each) <= 0.2 + share_by_chance(each) for each in found)
    assert all(least_probability(each) >= 1e-6 for each in found)


def test_two_of_four_in_step_are_noticed() -> None:
    found = [_four(seed, together=2) for seed in range(SEEDS)]
    found = [each for each in found if min(map(len, each.values())) >= 5]
    assert len(found) > SEEDS / 2
    assert all(least_probability(each) < 1e-6 for each in found)


def test_four_in_step_exceed_the_share() -> None:
    assert all(
        share(each) > 0.2 + share_by_chance(each)
        for each in (_four(seed, together=4) for seed in range(SEEDS))
    )
