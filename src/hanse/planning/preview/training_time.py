"""The time that the clients' training takes in a run, from a few real steps.

One client of those with the same settings is probed, since the others behave like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hanse.data.example import Example
from hanse.data.packed import lengths
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Reply
from hanse.federation.round import RoundExchange
from hanse.learners.adapted_model import AdaptedModel
from hanse.randomness import RoundContext

STEPS = 4  # optimizer steps of a probe
MOST = 1024  # examples of one step of a probe, at most


@dataclass(frozen=True)
class Probe:
    """A client's reply to a few steps, and its seconds for a token in the first epoch and later.

    Later epochs may be faster, since activations of frozen layers are cached.
    """

    reply: Reply
    first: float
    again: float


def probe_clients(
    simulation: Simulation, exchange: RoundExchange, folder: Path
) -> dict[str, Probe]:
    """The probe of each client; clients with the same settings share one."""
    texts: dict[int, str] = {}  # settings as text, by the identity of what most clients share
    probes: dict[str, Probe] = {}
    by_client = {}
    for name in exchange.instructions:
        client = simulation.clients[name]
        if id(client.experiment) not in texts:
            texts[id(client.experiment)] = client.experiment.model_dump_json()
        settings = texts[id(client.experiment)]
        if settings not in probes:
            request = exchange.encoded("train", name).pack()
            probes[settings] = _probe(simulation.endpoint(folder, name), client, request)
        by_client[name] = probes[settings]
    return by_client


def training_seconds(client: SimulatedClient, probe: Probe, rounds: float) -> float:
    """The seconds that a client trains in the whole run.

    rounds: the number of rounds that it takes part in.
    """
    tokens = _tokens_a_round(client) * rounds
    new = min(tokens, sum(lengths(client.examples["train"])))
    return new * probe.first + (tokens - new) * probe.again


def _tokens_a_round(client: SimulatedClient) -> float:
    """The tokens that a client trains on in one round, from the mean length of its examples."""
    train, settings = client.examples["train"], client.experiment.train
    return settings.steps(len(train)) * settings.batch * sum(lengths(train)) / len(train)


def _probe(endpoint: ClientEndpoint, client: SimulatedClient, request: bytes) -> Probe:
    """Probe one client.

    Before the timed steps come untimed ones on the longest examples: they reach the peak of memory,
    and warm the machine up.
    """
    train = client.examples["train"]
    size = client.experiment.train.per_device_train_batch_size * STEPS
    sizes = lengths(train)
    longest = [train[at] for at in sorted(range(len(train)), key=sizes.__getitem__)[-size:]]
    drawn = torch.randperm(len(train), generator=RoundContext(0).generator("probe"))[:size].tolist()
    _train(endpoint, client, request, longest)
    examples = [train[at] for at in drawn]
    replies = [_train(endpoint, client, request, examples) for _ in range(2)]
    speeds = [reply.update.numbers for reply in replies]
    first, again = (numbers["seconds"] / numbers["tokens"] for numbers in speeds)
    return Probe(replies[0], first, again)


def _train(
    endpoint: ClientEndpoint, client: SimulatedClient, request: bytes, train: Sequence[Example]
) -> Reply:
    """The reply after a few steps on these examples."""
    settings = client.experiment.train
    size = min(settings.per_device_train_batch_size, MOST)
    brief = replace(
        settings,
        max_steps=STEPS,
        num_train_epochs=None,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=min(settings.gradient_accumulation_steps, MOST // size),
    )

    def learner(context: RoundContext, optimizer_state: Memory) -> Learner:
        whole = endpoint.learner(context, optimizer_state)
        assert isinstance(whole, AdaptedModel)  # what a simulation's silos hold
        return replace(whole, splits={**whole.splits, "train": train}, training=brief)

    reply = Reply.parse(respond(replace(endpoint, learner=learner), request))
    if reply.error:
        raise UserError(reply.error)
    return reply
