"""A first round without training: each client answers with an update that a probe has trained.

The client halves are real, so that messages have the sizes of a run's. A client answers each
request once. Nothing is written outside the folder of the preview.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path

from hanse import federation
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client import ClientEndpoint
from hanse.federation.exchange.round import RoundExchange
from hanse.federation.interfaces.aggregator import TooFewClientsError
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.messages import Instruction, Update
from hanse.journal.records import ClientRecord
from hanse.simulation.in_process import InProcess


def prepare(
    simulation: Simulation,
    exchange: RoundExchange,
    updates: Mapping[str, Update],
    clients: Iterable[str],
    folder: Path,
) -> RoundExchange:
    """The same exchange with some of its clients, which do not train.

    updates: by client.
    """

    def endpoint(name: str) -> ClientEndpoint:
        client = simulation.endpoint(folder, name)
        algorithm = _without_training(client.method.algorithm, updates[name])
        method = replace(client.method, algorithm=algorithm)
        return replace(client, method=method, identity=simulation.identity(name))

    profiles = {name: exchange.profiles[name] for name in clients}
    return replace(
        exchange,
        run=replace(exchange.run, transport=InProcess(list(profiles.values()), endpoint)),
        profiles=profiles,
        instructions={name: exchange.instructions[name] for name in profiles},
    )


def all_phases(exchange: RoundExchange) -> list[ClientRecord]:
    """The ledger's records after all phases of the aggregator.

    Raises UserError if a client refuses a request, or if the clients are too few.
    """
    rule, clients = exchange.run.method.aggregator, len(exchange.profiles)
    with _unlogged():
        try:
            rule.aggregate(exchange)
        except TooFewClientsError as error:
            _records(exchange)
            raise UserError(
                f"{type(rule).__name__} needs {error.required} clients, but of the {clients} in a "
                f"round only {error.left} are left; let more clients take part, or let the rule "
                "need fewer."
            ) from None
    return _records(exchange)


def train_phase(exchange: RoundExchange) -> list[ClientRecord]:
    """The ledger's records after the phase of training alone.

    Raises UserError if a client refuses the request.
    """
    with _unlogged():
        sums_only = exchange.run.method.aggregator.sums_only
        for _ in exchange.sealed() if sums_only else exchange.updates():
            pass
    return _records(exchange)


def _records(exchange: RoundExchange) -> list[ClientRecord]:
    records = exchange.run.journal.ledger.records
    for record in records:
        if record.error:
            raise UserError(f"{record.client}: {record.error}")
    return records


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the log from telling of a round that is none; warnings are still logged."""
    log = logging.getLogger(federation.__name__)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _without_training(algorithm: Algorithm, update: Update) -> Algorithm:
    """A copy of an algorithm whose client half returns this update, with a client's own weight."""

    def train(instruction: Instruction, client: Client) -> Update:
        return replace(update, weight=algorithm.max_weight(client.profile))

    copied = copy(algorithm)
    vars(copied)["train"] = train
    return copied
