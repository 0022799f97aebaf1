"""The fewest updates that every round of a run combines, which its clients rely on."""

from hanse.experiment.schema import Experiment
from hanse.federation.client_sampling import fewest_replies, taking_part


def promised(experiment: Experiment, clients: int) -> int:
    """The quorum of a deployment in which so many clients take part.

    The server may begin when `deployment.quorum` of them are there, and draws the clients of a
    round from these.
    """
    needed = experiment.deployment.needed(clients)
    return fewest_replies(needed, needed, experiment.fraction_train)


def simulated(experiment: Experiment) -> int:
    """The quorum of a simulation, which keeps to `deployment.quorum` with a clock alone."""
    return promised(experiment, len(experiment.participant_names)) if experiment.is_timed else 1


def awaited(experiment: Experiment) -> int:
    """The number of clients that a round of a simulation waits for."""
    return taking_part(len(experiment.participant_names), experiment.fraction_train)
