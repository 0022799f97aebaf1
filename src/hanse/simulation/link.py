"""The simulated seconds of messages over one client's link to the server.

A message of n bytes takes latency + 8·(n + lost bytes) / rate seconds one way. Nothing else is
simulated: each client's link is its own, connections are open, and the server answers at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from hanse.experiment.assembly.assemble import Simulation
from hanse.journal.records import Journey

SEGMENT = 1460  # bytes of a message in one packet: 1,500 of Ethernet less the headers of TCP and IP


@dataclass(frozen=True)
class Link:
    """A client's link; `experiment/links.py` says what its settings mean."""

    up_mbps: float | None = None
    down_mbps: float | None = None
    latency_ms: float = 0.0
    loss: float = 0.0
    seconds_per_step: float = 0.0

    def journey(
        self, down: int, up: int, training: float, resent_down: float, resent_up: float
    ) -> Journey:
        """The journey of a request of `down` bytes and its reply of `up` bytes.

        training: seconds of work between them. resent_down, resent_up: bytes that are sent again.
        """
        return Journey(
            self._seconds(down + resent_down, self.down_mbps),
            training,
            self._seconds(up + resent_up, self.up_mbps),
            round(resent_down),
            round(resent_up),
        )

    def drawn_journey(self, down: int, up: int, training: float, draw: Random) -> Journey:
        """A journey whose lost bytes are drawn."""
        return self.journey(down, up, training, self._lost(down, draw), self._lost(up, draw))

    def mean_journey(self, down: int, up: int, training: float) -> Journey:
        """A journey with as many lost bytes as there are on average."""
        share = self.loss / (1 - self.loss)
        return self.journey(down, up, training, share * down, share * up)

    @property
    def _most_mbps(self) -> float:
        """The rate that a TCP connection reaches on a link with losses.

        SEGMENT / (RTT · sqrt(2p/3)), Mathis, Semke, Mahdavi and Ott 1997, "The macroscopic behavior
        of the TCP congestion avoidance algorithm", equation 3; RTT is twice the latency.
        """
        round_trip = 2 * self.latency_ms / 1000
        slowing = round_trip * math.sqrt(2 * self.loss / 3)
        return 8e-6 * SEGMENT / slowing if slowing else math.inf

    def _seconds(self, size: float, mbps: float | None) -> float:
        rate = min(math.inf if mbps is None else mbps, self._most_mbps)
        return self.latency_ms / 1000 + 8e-6 * size / rate

    def _lost(self, size: int, draw: Random) -> int:
        """The bytes of all lost packets of a message; one that is sent again may be lost again."""
        lost = 0
        for start in range(0, size if self.loss else 0, SEGMENT):
            while draw.random() < self.loss:
                lost += min(SEGMENT, size - start)
        return lost


def links(simulation: Simulation) -> dict[str, Link]:
    """The link of each client; empty without the setting `links`."""
    experiment = simulation.experiment
    if not experiment.has_links:
        return {}
    places = {name: place for place, name in enumerate(experiment.client_names)}
    settings = {name: client.experiment.links for name, client in simulation.clients.items()}
    return {
        name: Link(**own.at(places.get(name, 0))) if own else Link()  # type: ignore[arg-type]
        for name, own in settings.items()
    }


def training_seconds(simulation: Simulation, links: Mapping[str, Link]) -> dict[str, float]:
    """The simulated seconds in which each client trains in one round."""
    seconds = {}
    for name, link in links.items():
        client = simulation.clients[name]
        steps = client.experiment.train.steps(client.learner.row_count("train"))
        seconds[name] = steps * link.seconds_per_step
    return seconds
