"""The simulated seconds of messages over one client's link to the server.

A message of n bytes takes latency + 8·(n + lost bytes) / rate seconds one way. Nothing else is
simulated: each client's link is its own, connections are open, and the server answers at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.devices import known
from hanse.experiment.schema import Experiment
from hanse.journal.journey import Journey
from hanse.simulation.client_devices import ClientDevice

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
    """The link of each client; empty without the settings `links` and `device`.

    Rates that `links` leaves open are those of the client's device.
    """
    experiment = simulation.experiment
    if not experiment.is_timed:
        return {}
    places = {name: place for place, name in enumerate(experiment.client_names)}
    return {
        name: _link(client.experiment, places.get(name, 0))
        for name, client in simulation.clients.items()
    }


def _link(settings: Experiment, place: int) -> Link:
    """The link of a client at this place in the order of the clients."""
    link = Link(**settings.links.at(place)) if settings.links else Link()  # type: ignore[arg-type]
    if settings.device is None:
        return link
    device = known.find(settings.device, settings.devices)
    up = device.up_mbps if link.up_mbps is None else link.up_mbps
    down = device.down_mbps if link.down_mbps is None else link.down_mbps
    return replace(link, up_mbps=up, down_mbps=down)


def training_seconds(
    simulation: Simulation, links: Mapping[str, Link], devices: Mapping[str, ClientDevice]
) -> dict[str, float]:
    """The simulated seconds in which each client trains in one round.

    devices: of the clients that have one; the steps of the others take links.seconds_per_step.
    """
    seconds = {}
    for name, link in links.items():
        if name in devices:
            seconds[name] = devices[name].seconds
            continue
        client = simulation.clients[name]
        steps = client.experiment.train.steps(client.learner.row_count("train"))
        seconds[name] = steps * link.seconds_per_step
    return seconds
