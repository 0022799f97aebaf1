"""The simulated seconds of the first round over links, from the bytes of its messages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client_sampling import taking_part
from hanse.planning.preview.traffic import Phases
from hanse.simulation.client_devices import ClientDevice
from hanse.simulation.link import Link, links, training_seconds


@dataclass(frozen=True)
class LinkSeconds:
    """The simulated seconds of the first round before its scoring.

    slowest: of all clients the one with the longest training phase. late: those of all clients
        whose updates come after the deadline. deadline: None without one.
    usable: the number of updates of the round's clients in time, of `required`.
    """

    seconds: float
    slowest: str
    late: tuple[str, ...]
    deadline: float | None
    usable: int
    required: int


def link_seconds(
    simulation: Simulation,
    traffic: Phases,
    asked: Collection[str],
    devices: Mapping[str, ClientDevice],
) -> LinkSeconds | None:
    """The seconds of the first round; None without links and devices.

    asked: the clients of that round. devices: of the clients that have one. Losses
    count as many bytes as on average.
    """
    by_name = links(simulation)
    if not by_name:
        return None
    experiment = simulation.experiment
    training = training_seconds(simulation, by_name, devices)
    deadline = experiment.deployment.deadline
    clients = len(experiment.participant_names)
    awaited = taking_part(clients, experiment.fraction_train)
    phases = {kind: _seconds(by_name, traffic, kind, training) for kind in traffic}
    ends = [
        _end(
            [seconds[name] for name in seconds if name in asked],
            awaited if kind == "train" else len(asked),
            deadline,
        )
        for kind, seconds in phases.items()
    ]
    train = phases["train"]
    late = tuple(n for n, seconds in train.items() if deadline is not None and seconds > deadline)
    return LinkSeconds(
        seconds=sum(ends),
        slowest=max(train, key=lambda name: train[name]),
        late=late,
        deadline=deadline,
        usable=sum(name in asked and name not in late for name in train),
        required=min(experiment.deployment.needed(clients), awaited),
    )


def _end(seconds: Sequence[float], awaited: int, deadline: float | None) -> float:
    """The time at which the last awaited reply is in, or the deadline is over."""
    end = max(sorted(seconds)[:awaited], default=0.0)
    return end if deadline is None else min(end, deadline)


def _seconds(
    by_name: Mapping[str, Link], traffic: Phases, kind: str, training: Mapping[str, float]
) -> dict[str, float]:
    """The seconds of each client's request of one kind and its reply."""
    return {
        name: by_name[name]
        .mean_journey(sizes.down, sizes.up, training[name] if kind == "train" else 0.0)
        .seconds
        for name, sizes in traffic[kind].items()
    }
