"""Evaluation after a round: the global model at the server, and each client's own at the client."""

import logging
from collections.abc import Mapping
from dataclasses import asdict

from hanse.federation.interfaces.results import Scores
from hanse.federation.messages import ClientProfile
from hanse.federation.round import RoundExchange, open_round
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal.ledger import Row
from hanse.journal.run_folder import Journal
from hanse.randomness import RoundContext
from hanse.tensors.named import digest

log = logging.getLogger(__name__)


def evaluate(
    run: Run, round: int, server_state: ServerState, profiles: Mapping[str, ClientProfile]
) -> Row:
    """The scores that the schedule asks for after a round, as the round's record has them."""
    scores = _server_scores(run, round, server_state)
    if round == run.schedule.rounds and run.schedule.evaluate_clients:
        scores |= _client_scores(run, open_round(run, round, server_state, profiles))
    return scores


def _server_scores(run: Run, round: int, server_state: ServerState) -> Row:
    """The global model's scores on those of the server's splits that are due."""
    schedule, scores = run.schedule, Row()
    last, every = round == schedule.rounds, schedule.validate_every
    with run.journal.ledger.time("evaluation"):
        if last or (every and round % every == 0):
            scores |= _split_scores(run, round, server_state, "validation")
        if (last and schedule.test) or (round == 0 and schedule.test is True):
            scores |= _split_scores(run, round, server_state, "test")
    return scores


def _split_scores(run: Run, round: int, server_state: ServerState, split: str) -> Row:
    """The global model's scores on one split, by the split's name; empty if it has no examples."""
    learner = run.learner(RoundContext(run.schedule.seed, round), {})
    tasks = {n: task for n, task in run.tasks.items() if split == "test" or not task.test_only}
    if not tasks or not learner.examples(split):
        return {}
    model = run.method.algorithm.model(server_state.algorithm_state)
    model_digest = digest(model)
    if run.scored.get(split, ("", {}))[0] != model_digest:  # score an unchanged model only once
        learner.load(model)
        scores = {name: task.evaluate(learner, split) for name, task in tasks.items()}
        run.scored[split] = model_digest, scores
    metrics: dict[str, float] = {}
    for name, task_scores in run.scored[split][1].items():
        metrics |= task_scores.metrics
        if split == "test":
            _save_scores(run.journal, f"{split}-{name}", round, task_scores)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    log.info("round %d: %s %s", round, split, shown)
    return {split: metrics}


def _save_scores(journal: Journal, name: str, round: int, scores: Scores) -> None:
    samples = [asdict(sample) for sample in scores.samples]
    journal.scores(name, round, scores.metrics, scores.items, samples)


def _client_scores(run: Run, exchange: RoundExchange) -> Row:
    """Each client's scores on its own held-out rows, as the record has them."""
    with run.journal.ledger.time("round"):
        updates = {profile.name: update for profile, update in exchange.evaluate()}
    scores = {name: dict(update.numbers) for name, update in updates.items() if update.weight}
    return {"client_test": scores} if scores else {}
