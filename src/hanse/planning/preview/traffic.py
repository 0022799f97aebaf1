"""The bytes of a round's messages, by kind of request and client."""

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.exchange.round import RoundExchange
from hanse.federation.messages import PREPARE, Reply, Update
from hanse.journal.records import ClientRecord
from hanse.planning.preview import rehearsal
from hanse.tensors.named import Layout, Tensors, largest, layout, varies, zeros


@dataclass(frozen=True)
class Traffic:
    """The bytes of a request to a client and of its reply, and the most that these may have.

    `most_down` and `most_up` are larger only if a codec's messages vary in length.
    """

    down: int
    up: int
    most_down: int
    most_up: int


Phases = Mapping[str, Mapping[str, Traffic]]  # by kind of request and client


def round_traffic(
    simulation: Simulation,
    exchange: RoundExchange,
    updates: Mapping[str, Update],
    sampled: Collection[str],
    folder: Path,
) -> Phases:
    """The bytes of a round, measured in a rehearsal of it.

    updates: by client; those of the same settings and layout share one.
    sampled: the clients of the round.

    If the aggregator has phases of its own, the round's clients go through all of them, since the
    bytes may depend on their number. Otherwise the bytes depend on names and shapes alone; they are
    measured with one client of those that share these, and hold for all others.
    """
    if exchange.run.method.aggregator.has_phases:
        clients = [name for name in exchange.instructions if name in sampled]
        trial = rehearsal.prepare(simulation, exchange, updates, clients, folder)
        return _by_phase(trial, rehearsal.all_phases(trial))
    forms = {name: _form(exchange, name, updates[name]) for name in exchange.instructions}
    representatives: dict[Hashable, str] = {}
    for name, form in forms.items():
        representatives.setdefault(form, name)
    trial = rehearsal.prepare(simulation, exchange, updates, representatives.values(), folder)
    measured = _by_phase(trial, rehearsal.train_phase(trial))
    return {
        kind: {name: traffic[representatives[form]] for name, form in forms.items()}
        for kind, traffic in measured.items()
    }


def typical(exchange: RoundExchange) -> RoundExchange:
    """The exchange of a round whose instructions are those of later rounds.

    In the first round of some algorithms there is nothing to send yet.
    """
    algorithm, state = exchange.algorithm, exchange.server_state
    later = algorithm.typical(state.algorithm_state)
    if later is state.algorithm_state:
        return exchange
    instructions = {
        name: algorithm.instruction(later, exchange.profiles[name], exchange.context)
        for name in exchange.instructions
    }
    return replace(
        exchange,
        server_state=replace(state, algorithm_state=later),
        instructions={name: own for name, own in instructions.items() if own is not None},
    )


def constants_size(exchange: RoundExchange) -> int:
    """The bytes that the adapter's constants add to a request."""
    if not exchange.constants.digest:
        return 0
    request = exchange.encoded("train", next(iter(exchange.instructions)))
    return len(request.pack()) - len(replace(request, given={}).pack())


def files_size(records: Iterable[ClientRecord]) -> int:
    """The bytes down to a client that was sent all files; the other clients here share them."""
    return max((record.down for record in records if record.kind == PREPARE), default=0)


def _form(exchange: RoundExchange, name: str, update: Update) -> Hashable:
    """All that the size of a client's messages depends on."""
    instruction = exchange.instructions[name]
    pipelines = exchange.run.method.of(name)
    escaped_name = len(json.dumps(json.dumps(name)))
    return id(update), id(pipelines), id(instruction.tensors), *instruction.numbers, escaped_name


def _by_phase(exchange: RoundExchange, records: Iterable[ClientRecord]) -> Phases:
    """The bytes in these records, in the order of the requests."""
    phases: dict[str, dict[str, Traffic]] = defaultdict(dict)
    for record in records:
        most_down, most_up = record.down, record.up
        if record.kind == "train":
            most_down += _growth_of_request(exchange, record.client)
            most_up = _largest_reply(exchange, record)
        phases[record.kind][record.client] = Traffic(record.down, record.up, most_down, most_up)
    return phases


def _growth_of_request(exchange: RoundExchange, client: str) -> int:
    """The bytes that a request to train may have beyond this round's."""
    instruction, method = exchange.instructions[client], exchange.run.method
    states = exchange.server_state.transform_states
    encoded = method.of(client).download.layout(layout(instruction.tensors), states)
    if not varies(encoded):
        return 0
    request = exchange.encoded("train", client)
    most = replace(request, instruction=replace(request.instruction, tensors=_largest(encoded)))
    return len(most.pack()) - len(request.pack())


def _largest_reply(exchange: RoundExchange, record: ClientRecord) -> int:
    """The bytes of the largest reply with the numbers in a record of a training."""
    sealed = exchange.sealed_layout(record.client)
    if not varies(sealed):
        return record.up
    numbers = {name: value for name, value in record.numbers.items() if name != "weight"}
    update = Update(_largest(sealed), numbers)
    return len(Reply(record.client, "train", exchange.context.round, update).pack())


def _largest(expected: Layout) -> Tensors:
    return zeros({name: largest(form) for name, form in expected.items()})
