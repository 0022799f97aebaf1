"""The simulated seconds of a round over links, from the bytes of its messages."""

from collections.abc import Mapping
from dataclasses import dataclass

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client_sampling import taking_part
from hanse.planning.preview.traffic import Phases
from hanse.simulation.link import Link, links, training_seconds


@dataclass(frozen=True)
class LinkSeconds:
    """The simulated seconds of a round before its scoring, if all clients took part in it.

    slowest: the client with the longest training phase. late: the clients whose updates come after
        the deadline. deadline: None without one.
    usable: the number of updates in time, of `required`.
    """

    seconds: float
    slowest: str
    late: tuple[str, ...]
    deadline: float | None
    usable: int
    required: int


def link_seconds(simulation: Simulation, traffic: Phases) -> LinkSeconds | None:
    """The seconds of a round; None without links. Losses count as many bytes as on average."""
    by_name = links(simulation)
    if not by_name:
        return None
    experiment, training = simulation.experiment, training_seconds(simulation, by_name)
    deadline = experiment.deployment.deadline
    phases = {kind: _seconds(by_name, traffic, kind, training) for kind in traffic}
    ends = [max(seconds.values()) for seconds in phases.values()]
    train = phases["train"]
    late = tuple(n for n, seconds in train.items() if deadline is not None and seconds > deadline)
    names = experiment.participant_names
    return LinkSeconds(
        seconds=sum(ends if deadline is None else (min(end, deadline) for end in ends)),
        slowest=max(train, key=lambda name: train[name]),
        late=late,
        deadline=deadline,
        usable=len(train) - len(late),
        required=min(
            experiment.deployment.needed(len(names)),
            taking_part(len(names), experiment.fraction_train),
        ),
    )


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
