"""The time that the clients' training takes in a run, from a few real steps.

One client of those whose settings differ in their data alone, with updates of the same layout, is
probed: the one with the longest example. The others behave like it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hanse.data.packed import lengths
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.experiment.schema import Experiment
from hanse.federation.client import ClientEndpoint, train_only
from hanse.federation.exchange.round import RoundExchange
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Request, Update
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import largest, shapes

STEPS = 4  # optimizer steps of a timed part of a probe, at most
LONGEST = 2  # optimizer steps on the longest examples; the second one has an optimizer state
SECONDS = 3.0  # that a timed part may take, unless one step takes longer
MOST = 1024  # examples of one step of a probe, at most


@dataclass(frozen=True)
class Probe:
    """A client's update after a few steps, and its seconds a token in the first epoch and later.

    Later epochs may be faster, since activations of frozen layers are cached. Products of a shape
    that is new take longer, too, but a run meets most shapes in its first steps.
    """

    update: Update
    first: float
    again: float


def probe_clients(
    simulation: Simulation, exchange: RoundExchange, folder: Path
) -> dict[str, Probe]:
    """The probe of each client; clients whose settings differ in their data alone share one."""
    texts: dict[int, str] = {}  # settings as text, by the identity of what most clients share
    kinds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name in exchange.instructions:
        settings = simulation.clients[name].experiment
        if id(settings) not in texts:
            texts[id(settings)] = _settings(settings)
        kinds[texts[id(settings)], _layout(exchange, name)].append(name)
    probes: dict[str, Probe] = {}
    for names in kinds.values():
        client = max(names, key=lambda name: _sizes(simulation.clients[name]))
        request = exchange.encoded("train", client)
        probe = _probe(simulation.endpoint(folder, client), simulation.clients[client], request)
        probes |= dict.fromkeys(names, probe)
    return {name: probes[name] for name in exchange.instructions}


def _sizes(client: SimulatedClient) -> tuple[int, int]:
    """(tokens of a client's longest training example, tokens of all): memory, then time."""
    sizes = lengths(client.examples["train"])
    return max(sizes), sum(sizes)


def _settings(experiment: Experiment) -> str:
    """The settings that the time of a client's step may depend on, as text."""
    settings = experiment.resolved()
    for section in ("clients", "participants", "compression", "data", "links", "device"):
        del settings[section]
    return json.dumps(settings)


def _layout(exchange: RoundExchange, name: str) -> str:
    """The layout of a client's update as text: names, largest shapes, dtypes."""
    state, profile = exchange.server_state.algorithm_state, exchange.profiles[name]
    layout = exchange.algorithm.update_layout(state, profile, exchange.context)
    return str(shapes({name: largest(form) for name, form in layout.items()}))


def training_seconds(simulation: Simulation, probes: Mapping[str, Probe], rounds: float) -> float:
    """The seconds that all clients train in the whole run.

    probes: by client. rounds: the number of rounds that each client takes part in, on average.
    """
    seconds = 0.0
    for name, probe in probes.items():
        client = simulation.clients[name]
        tokens = _tokens_a_round(client) * rounds
        new = min(tokens, sum(lengths(client.examples["train"])))
        seconds += new * probe.first + (tokens - new) * probe.again
    return seconds


def _tokens_a_round(client: SimulatedClient) -> float:
    """The tokens that a client trains on in one round, from the mean length of its rows."""
    settings, rows = client.experiment.train, client.learner.row_count("train")
    tokens = sum(lengths(client.examples["train"]))
    return settings.steps(rows) * settings.batch * tokens / rows


def _probe(endpoint: ClientEndpoint, client: SimulatedClient, request: Request) -> Probe:
    """Probe one client.

    Before the timed steps come untimed ones on the longest examples: they reach the peak of memory,
    and warm the machine up.
    """
    train = client.examples["train"]
    size = client.experiment.train.per_device_train_batch_size
    sizes = lengths(train)
    longest = sorted(range(len(train)), key=sizes.__getitem__)[-size * LONGEST :]
    warm = _train(endpoint, client, request, longest, LONGEST)
    steps = min(STEPS, max(1, int(SECONDS * LONGEST / warm.numbers["seconds"])))
    drawn = torch.randperm(len(train), generator=RoundContext(0).generator("probe"))
    places = drawn[: size * steps].tolist()
    update = _train(endpoint, client, request, places, steps)
    first = again = _seconds_each(update)
    is_cached = client.learner.attached.frozen_depth
    if is_cached or update.numbers["seconds"] < SECONDS:  # in longer steps new shapes cost little
        again = _seconds_each(_train(endpoint, client, request, places, steps))
    return Probe(update, first if is_cached else again, again)


def _seconds_each(update: Update) -> float:
    """The seconds of a client's training for each token."""
    return update.numbers["seconds"] / update.numbers["tokens"]


def _train(
    endpoint: ClientEndpoint,
    client: SimulatedClient,
    request: Request,
    places: Sequence[int],
    steps: int,
) -> Update:
    """The update after so many steps on the training examples at these places."""
    settings = client.experiment.train
    size = min(settings.per_device_train_batch_size, MOST)
    brief = replace(
        settings,
        max_steps=steps,
        num_train_epochs=None,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=min(settings.gradient_accumulation_steps, MOST // size),
    )

    def learner(context: RoundContext, optimizer_state: Memory) -> Learner:
        whole = endpoint.learner(context, optimizer_state)
        assert isinstance(whole, AdaptedModel)  # what a simulation's silos hold
        return _brief(whole, places, brief)

    return train_only(replace(endpoint, learner=learner), request)


def _brief(
    learner: AdaptedModel, places: Sequence[int], training: TrainingSettings
) -> AdaptedModel:
    """A learner, and those beside it, with a part of the training examples and other settings."""
    train = learner.examples("train")
    splits = {**learner.splits, "train": [train[at] for at in places]}
    models = {name: _brief(model, places, training) for name, model in learner.models.items()}
    return replace(learner, splits=splits, training=training, models=models)
