"""The schedule of a run, from its experiment."""

from dataclasses import replace

from hanse.experiment.schema import Experiment
from hanse.federation.interfaces.transport import Transport
from hanse.federation.schedule import Schedule


def schedule_of(experiment: Experiment, transport: Transport) -> Schedule:
    """The schedule of a run. Without links simulated clients always answer; they are trusted."""
    evaluation, deployment = experiment.evaluation, experiment.deployment
    schedule = Schedule(
        rounds=experiment.rounds,
        seed=experiment.seed,
        fraction_train=experiment.fraction_train,
        validate_every=evaluation.validate_every,
        test=evaluation.test,
        evaluate_clients=evaluation.clients and experiment.data.client_test > 0,
        participants=tuple(experiment.participant_names),
    )
    if not transport.timed:
        return schedule
    return replace(
        schedule,
        deadline=deployment.deadline,
        quorum=deployment.needed(len(experiment.participant_names)),
        over_selection=deployment.over_selection,
        max_norm_ratio=deployment.max_norm_ratio if transport.remote else None,
    )
