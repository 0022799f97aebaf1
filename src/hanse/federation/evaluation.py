"""Evaluation after a round: the global model at the server, and each client's own at the client."""

import logging
from collections.abc import Mapping

from hanse.federation.exchange.round import RoundExchange, open_round
from hanse.federation.interfaces.results import Scores
from hanse.federation.messages import ClientProfile
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal.records import Evaluation, Metrics, RoundScores
from hanse.tensors.named import digest

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
    """The global model's scores on one of the server's splits; empty if it has no examples."""
    learner = run.learner(run.context(round), {})
    tasks = {n: task for n, task in run.tasks.items() if split == "test" or not task.test_only}
    if not tasks or not learner.examples(split):
        return {}
    model = run.method.algorithm.model(server_state.algorithm_state)
    model_digest = digest(model)
    if run.scored.get(split, ("", {}))[0] != model_digest:  # score an unchanged model only once
        learner.load(model)
        scores = {name: task.evaluate(learner, split) for name, task in tasks.items()}
        run.scored[split] = model_digest, scores
    metrics: Metrics = {}
    for name, task_scores in run.scored[split][1].items():
        metrics |= task_scores.metrics
        if split == "test":
            run.journal.keep(f"{split}-{name}", _evaluation(round, task_scores))
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    log.info("round %d: %s %s", round, split, shown)
    return metrics


def _evaluation(round: int, scores: Scores) -> Evaluation:
    """The record of a task's scores after a round."""
    return Evaluation(
        round,
        scores.metrics,
        items=tuple(scores.items),
        samples=tuple(scores.samples),
        truth=tuple(scores.truth),
        answers=tuple(scores.answers),
        wrong=tuple(scores.wrong),
    )


def _client_scores(run: Run, exchange: RoundExchange) -> dict[str, Metrics]:
    """The global model's scores on each client's own held-out rows."""
    with run.journal.ledger.time("round"):
        updates = {profile.name: update for profile, update in exchange.evaluate()}
    return {name: dict(update.numbers) for name, update in updates.items() if update.weight}
