"""Evaluation after a round: the global model at the server, and each client's own at the client."""

import logging
from collections.abc import Mapping

from hanse.federation.exchange.round import RoundExchange, open_round
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task
from hanse.federation.messages import ClientProfile
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal.records import Evaluation, Metrics, RoundScores
from hanse.tensors.named import Tensors, digest

log = logging.getLogger(__name__)


def evaluate(
    run: Run, round: int, server_state: ServerState, profiles: Mapping[str, ClientProfile]
) -> RoundScores:
    """The scores that the schedule asks for after a round."""
    schedule = run.schedule
    last, every = round == schedule.rounds, schedule.validate_every
    validated = last or (every > 0 and round % every == 0)
    tested = (last and schedule.test) or (round == 0 and schedule.test is True)
    with run.journal.ledger.time("evaluation"):
        validation = _split_scores(run, round, server_state, "validation") if validated else {}
        test = _split_scores(run, round, server_state, "test") if tested else {}
    client_test = {}
    if last and run.evaluates_clients:
        client_test = _client_scores(run, open_round(run, round, server_state, profiles))
    return RoundScores(validation=validation, test=test, client_test=client_test)


def _split_scores(run: Run, round: int, server_state: ServerState, split: str) -> Metrics:
    """The server's models' scores on one of its splits; empty if it has no examples.

    Names of scores of a model beside the trained one begin with its name and a dot.
    """
    learner = run.learner(run.context(round), {})
    tasks = {n: task for n, task in run.tasks.items() if split == "test" or not task.test_only}
    if not tasks or not learner.examples(split):
        return {}
    algorithm, state = run.method.algorithm, server_state.algorithm_state
    models: dict[str, tuple[Learner, Tensors]] = {"": (learner, algorithm.model(state))}
    models |= {
        f"{name}.": (learner.models[name], tensors)
        for name, tensors in algorithm.beside(state).items()
    }
    scores: dict[str, Evaluation] = {}
    for prefix, (model, tensors) in models.items():
        scores |= _scored(run, round, (split, prefix), model, tensors, tasks)
    if split == "test":
        for name, evaluation in scores.items():
            run.journal.keep(f"{split}-{name}", evaluation)
    metrics = {n: v for evaluation in scores.values() for n, v in evaluation.metrics.items()}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    log.info("round %d: %s %s", round, split, shown)
    return metrics


def _scored(
    run: Run,
    round: int,
    place: tuple[str, str],
    learner: Learner,
    tensors: Tensors,
    tasks: Mapping[str, Task],
) -> dict[str, Evaluation]:
    """One model's scores by task; an unchanged model is scored only once.

    place: the split, and what the names of the scores begin with.
    """
    split, prefix = place
    tensors_digest = digest(tensors)
    if run.scored.get(place, ("", {}))[0] != tensors_digest:
        learner.load(tensors)
        found = {name: task.evaluate(learner, split) for name, task in tasks.items()}
        run.scored[place] = tensors_digest, found
    return {
        f"{prefix}{name}": _evaluation(round, prefix, scores)
        for name, scores in run.scored[place][1].items()
    }


def _evaluation(round: int, prefix: str, scores: Scores) -> Evaluation:
    """The record of a task's scores after a round."""
    return Evaluation(
        round,
        {f"{prefix}{name}": value for name, value in scores.metrics.items()},
        items=tuple(scores.items),
        samples=tuple(scores.samples),
        truth=tuple(scores.truth),
        answers=tuple(scores.answers),
        wrong=tuple(scores.wrong),
    )


def _client_scores(run: Run, exchange: RoundExchange) -> dict[str, Metrics]:
    """The scores of the model that each client would keep, on the rows that it holds out."""
    with run.journal.ledger.time("round"):
        updates = {profile.name: update for profile, update in exchange.evaluate()}
    return {name: dict(update.numbers) for name, update in updates.items() if update.weight}
