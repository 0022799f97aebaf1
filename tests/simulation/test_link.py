"""Seconds of messages over a link, against the closed form and counted packets."""

import math
from random import Random

import pytest

from hanse.experiment.links import Links
from hanse.simulation.link import SEGMENT, Link


def test_a_link_without_losses_takes_latency_and_bits_by_rate() -> None:
    link = Link(up_mbps=10, down_mbps=50, latency_ms=40)
    journey = link.drawn_journey(5_000_000, 1_250_000, 7.0, Random(0))
    assert journey.down == pytest.approx(0.04 + 40_000_000 / 50e6, abs=1e-12)
    assert journey.up == pytest.approx(0.04 + 10_000_000 / 10e6, abs=1e-12)
    assert (journey.training, journey.resent_down, journey.resent_up) == (7.0, 0, 0)
    assert journey.seconds == pytest.approx(0.84 + 7 + 1.04)
    assert link.mean_journey(5_000_000, 1_250_000, 7.0) == journey


def test_a_link_without_limits_takes_no_time() -> None:
    assert Link().drawn_journey(10**9, 10**9, 0.0, Random(0)).seconds == 0


def test_lost_packets_are_sent_again() -> None:
    link = Link(up_mbps=8, loss=0.25)
    size = 100 * SEGMENT + 1
    draws, lost = Random(3), 0
    for _ in range(101):  # of the request
        while draws.random() < 0.25:
            pass
    for number in range(101):
        while draws.random() < 0.25:
            lost += 1 if number == 100 else SEGMENT
    journey = link.drawn_journey(size, size, 0.0, Random(3))
    assert journey.resent_up == lost > 0
    assert journey.up == pytest.approx((size + lost) / 1e6)
    assert journey == link.drawn_journey(size, size, 0.0, Random(3))
    assert journey != link.drawn_journey(size, size, 0.0, Random(4))


def test_on_average_a_share_of_the_bytes_is_lost() -> None:
    link, size = Link(up_mbps=8, loss=0.1), 20 * SEGMENT
    draw = Random(0)
    lost = [link.drawn_journey(0, size, 0.0, draw).resent_up for _ in range(4000)]
    mean = link.mean_journey(0, size, 0.0)
    assert mean.resent_up == round(size / 9)
    # The number of losses is negative binomial: variance 20·p/(1-p)² packets.
    deviation = SEGMENT * math.sqrt(20 * 0.1 / 0.81 / 4000)
    assert sum(lost) / 4000 == pytest.approx(size / 9, abs=4 * deviation)


def test_losses_bound_the_rate_of_a_long_way() -> None:
    """Mathis et al. 1997: 1,460 bytes a round trip of 80 ms over sqrt(2·0.01/3) are 1.79 Mb/s."""
    size, share = 10**6, 0.01 / 0.99
    rate = 1460 * 8 / (0.08 * math.sqrt(0.02 / 3))
    assert rate == pytest.approx(1.788e6, rel=1e-3)
    for mbps in (10, 1000, None):
        journey = Link(up_mbps=mbps, latency_ms=40, loss=0.01).mean_journey(0, size, 0.0)
        assert journey.up == pytest.approx(0.04 + 8 * size * (1 + share) / rate)
    slower = Link(up_mbps=1, latency_ms=40, loss=0.01).mean_journey(0, size, 0.0)
    assert slower.up == pytest.approx(0.04 + 8 * (1 + share))


def test_clients_take_numbers_of_a_list_in_turn() -> None:
    links = Links(up_mbps=[10, 1], latency_ms=[5, 6, 7], loss=0.1)
    settings = [Link(**links.at(place)) for place in range(4)]  # type: ignore[arg-type]
    assert [link.up_mbps for link in settings] == [10, 1, 10, 1]
    assert [link.latency_ms for link in settings] == [5, 6, 7, 5]
    assert {(link.loss, link.down_mbps) for link in settings} == {(0.1, None)}
