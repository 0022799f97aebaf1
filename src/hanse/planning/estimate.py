"""A preview of a run: data, bytes, time and memory, from a few real steps: `hanse check`."""

import json
import tempfile
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hanse.data.example import Example
from hanse.data.formats.row import Reading, reading
from hanse.data.packed import lengths
from hanse.data.sources import corpora
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.data.tokenization import render
from hanse.errors import UserError
from hanse.experiment.assembly import federated_dataset
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation, simulate
from hanse.experiment.assembly.resources import examples
from hanse.experiment.schema import Experiment, build_objective, build_trackers
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_sampling import sample
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.task import Task
from hanse.federation.messages import Reply
from hanse.federation.round import RoundExchange, open_round
from hanse.federation.run import Run
from hanse.federation.server import start
from hanse.journal.records import DivisionRecord
from hanse.journal.run_folder import Journal
from hanse.journal.tracking import refuse_missing
from hanse.learners.adapted_model import AdaptedModel
from hanse.observability.memory import available_memory, peak_memory
from hanse.randomness import RoundContext
from hanse.simulation.in_process import in_process

PROBED = 4  # optimizer steps of a probe
TRIED = 1024  # most examples of a step of a probe
SCORED = 64  # examples that a task is timed on
ANSWERED = 16  # examples that a task with generated answers is timed on
MEASURED = 1000  # rows whose length in tokens is counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training examples before cutting, and the share of them that is cut."""

    mean: float
    most: float  # 95 % are no longer
    limit: int  # max_length
    cut: float


@dataclass(frozen=True)
class Preview:
    """The data that `hanse check` shows."""

    readings: list[tuple[str, Reading]]  # how the columns of each data source were read
    example: list[tuple[str, bool]]  # pieces of the first training example; True: learned
    lengths: Lengths
    table: DivisionRecord  # who holds which rows
    trained: int  # parameters
    total: int  # parameters of the base model
    down: dict[str, int]  # client → bytes of a round's request
    up: dict[str, int]  # client → bytes of its reply
    once: int  # bytes more of the first request to a client: the adapter's constants
    clients_a_round: int
    seconds: float  # of the whole run, after the model is loaded
    memory: int  # bytes at the peak
    available: int  # bytes that this process might have used


def preview(experiment: Experiment) -> Preview:
    """Load everything, train a few steps and score a few rows in a folder that is then removed."""
    refuse_missing(build_trackers(experiment))
    available = peak_memory() + available_memory()
    simulation = simulate(experiment)
    with tempfile.TemporaryDirectory(prefix="hanse-check-") as folder:
        journal = Journal(Path(folder))
        try:
            clients = in_process(simulation, Path(folder))
            run = simulation.run(journal, clients)
            return _measured(simulation, run, Path(folder), available)
        finally:
            journal.close()


def _measured(simulation: Simulation, run: Run, folder: Path, available: int) -> Preview:
    settings = simulation.experiment
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    chosen = len(sample(profiles, settings.fraction_train, RoundContext(settings.seed, 1)))
    rounds = settings.rounds * chosen / len(profiles)  # of one client, on average
    once = _constants(exchange)
    # The clients here find the constants in the server's own folder.
    exchange.server_state.holding.update(profiles)
    down, up, training = _asked(simulation, exchange, folder, rounds)
    learner = simulation.learner
    trained = sum(p.numel() for p in learner.parameters().values())
    return Preview(
        readings=_readings(settings),
        example=render.show(
            simulation.clients[next(iter(up))].examples["train"][0], learner.backbone.tokenizer
        ),
        lengths=_lengths(simulation),
        table=federated_dataset.table(simulation.dataset, settings),
        trained=trained,
        total=learner.backbone.weights,
        down=down,
        up=up,
        once=once,
        clients_a_round=chosen,
        seconds=training + _scoring(simulation, run),
        memory=peak_memory(),
        available=available,
    )


def _constants(exchange: RoundExchange) -> int:
    """The bytes that the adapter's constants add to a request."""
    if not exchange.constants.digest:
        return 0
    with_them = exchange.encoded("train", next(iter(exchange.instructions)))
    return len(with_them.pack()) - len(replace(with_them, given={}).pack())


def _asked(
    simulation: Simulation, exchange: RoundExchange, folder: Path, rounds: float
) -> tuple[dict[str, int], dict[str, int], float]:
    """The bytes down to each client and up from it, and the seconds of all clients' training.

    rounds: the number of rounds that each client takes part in.

    One client of those with the same settings is probed, since the others behave like it. The size
    of a message depends on its names and shapes, and is computed once for all that share these.
    """
    down, up, training = {}, {}, 0.0
    settings: dict[int, str] = {}  # as text, by the identity of what most clients share
    probes: dict[str, tuple[Reply, float, float]] = {}
    sizes: dict[Hashable, tuple[int, int]] = {}
    for name, instruction in exchange.instructions.items():
        silo = simulation.clients[name]
        if id(silo.experiment) not in settings:
            settings[id(silo.experiment)] = silo.experiment.model_dump_json()
        text = settings[id(silo.experiment)]
        if text not in probes:
            request = exchange.encoded("train", name).pack()
            probes[text] = _probe(simulation.endpoint(folder, name), silo, request)
        reply, first, again = probes[text]
        kind = (
            text,
            id(instruction.tensors),
            *instruction.numbers,
            len(json.dumps(json.dumps(name))),
        )
        if kind not in sizes:
            sizes[kind] = traffic(exchange, name, reply)
        down[name], up[name] = sizes[kind]
        tokens = _tokens_a_round(silo) * rounds
        new = min(tokens, sum(lengths(silo.examples["train"])))
        training += new * first + (tokens - new) * again
    return down, up, training


def traffic(exchange: RoundExchange, name: str, reply: Reply) -> tuple[int, int]:
    """The bytes of a round's request to a client, and of a reply from it in the form of `reply`."""
    answer = replace(reply, client=name)
    return len(exchange.encoded("train", name).pack()), len(answer.pack())


def _probe(
    site: ClientEndpoint, silo: SimulatedClient, request: bytes
) -> tuple[Reply, float, float]:
    """A client's reply to a few steps, and its seconds for a token in the first epoch and later.

    Later epochs may be faster, since activations of frozen layers are cached. Before the timed
    steps come untimed ones on the longest examples: they reach the peak of memory, and warm the
    machine up.
    """
    train = silo.examples["train"]
    size = silo.experiment.train.per_device_train_batch_size * PROBED
    sizes = lengths(train)
    longest = [train[at] for at in sorted(range(len(train)), key=sizes.__getitem__)[-size:]]
    drawn = torch.randperm(len(train), generator=RoundContext(0).generator("probe"))[:size].tolist()
    _answer(site, silo, request, longest)
    replies = [_answer(site, silo, request, [train[at] for at in drawn]) for _ in range(2)]
    speeds = [reply.update.numbers for reply in replies]
    first, again = (numbers["seconds"] / numbers["tokens"] for numbers in speeds)
    return replies[0], first, again


def _answer(
    site: ClientEndpoint, silo: SimulatedClient, request: bytes, train: Sequence[Example]
) -> Reply:
    """The reply after a few steps on these examples."""
    settings = silo.experiment.train
    size = min(settings.per_device_train_batch_size, TRIED)
    brief = replace(
        settings,
        max_steps=PROBED,
        num_train_epochs=None,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=min(settings.gradient_accumulation_steps, TRIED // size),
    )

    def learner(context: RoundContext, optimizer_state: Memory) -> Learner:
        whole = site.learner(context, optimizer_state)
        assert isinstance(whole, AdaptedModel)  # what a simulation's silos hold
        return replace(whole, splits={"train": train}, training=brief)

    reply = Reply.parse(respond(replace(site, learner=learner), request))
    if reply.error:
        raise UserError(reply.error)
    return reply


def _tokens_a_round(silo: SimulatedClient) -> float:
    """The tokens that a client trains on in one round, from the mean length of its examples."""
    train, settings = silo.examples["train"], silo.experiment.train
    return settings.steps(len(train)) * settings.batch * sum(lengths(train)) / len(train)


def _scoring(simulation: Simulation, run: Run) -> float:
    """The seconds of evaluation in the whole run."""
    schedule, learner = run.schedule, simulation.learner
    every = schedule.validate_every
    looks = len({*(range(0, schedule.rounds, every) if every else ()), schedule.rounds})
    tests = {True: 2, "final": 1, False: 0}[schedule.test]
    held = [silo.examples["test"] for silo in simulation.clients.values()]
    seconds = 0.0
    for task in run.tasks.values():
        splits = [learner.examples("test")] * tests
        if not task.test_only:
            splits += [learner.examples("validation")] * looks
            splits += held if schedule.evaluate_clients else []
        splits = [split for split in splits if split]
        if splits:
            amount = sum(_amount(task, split) for split in splits)
            seconds += amount * _seconds_each(task, simulation, splits[0])
    return seconds


def _amount(task: Task, split: Sequence[Example]) -> int:
    """The units that the time of scoring grows with: generated answers, or else tokens."""
    scored = split[: task.limit]
    return len(scored) if task.test_only else sum(lengths(scored))


def _seconds_each(task: Task, simulation: Simulation, split: Sequence[Example]) -> float:
    """The seconds for each unit of `_amount`, from scoring a few examples of every length."""
    probe = split[:: max(1, len(split) // (ANSWERED if task.test_only else SCORED))]
    begin = time.perf_counter()
    task.evaluate(replace(simulation.learner, splits={"test": probe}), "test")
    return (time.perf_counter() - begin) / _amount(task, probe)


def _lengths(simulation: Simulation) -> Lengths:
    """The lengths of the training examples with these settings, from a part of the rows."""
    settings, learner = simulation.experiment, simulation.learner
    rows = [row for name in settings.client_names for row in simulation.dataset.train[name]]
    rows = rows[:: max(1, len(rows) // MEASURED)]
    labels, example_kind = simulation.dataset.labels, build_objective(settings).example_kind
    cut = examples(settings, rows, labels, example_kind, learner.backbone)
    whole = examples(settings, rows, labels, example_kind, learner.backbone, whole=True)
    sizes = np.array([len(example) for example in whole])
    return Lengths(
        mean=float(sizes.mean()),
        most=float(np.quantile(sizes, 0.95)),
        limit=learner.backbone.max_length(settings.model.max_length),
        cut=float(np.mean([len(a) < len(b) for a, b in zip(cut, whole, strict=True)])),
    )


def _readings(experiment: Experiment) -> list[tuple[str, Reading]]:
    """Each data source, and how the columns of its first record are read."""
    named = [experiment]
    if experiment.brings_own_data:
        named = [experiment.for_client(name) for name in experiment.client_names]
    sources = [(TRAIN, settings.data.path, settings.data) for settings in named]
    for split in (VALIDATION, TEST):
        path = getattr(experiment.data, split)
        sources += [(split, path, experiment.data)] if isinstance(path, str) else []
    readings = []
    for split, path, data in sources:
        place, record = next(iter(corpora.records(path, split=split)))
        readings.append((path, reading(record, data.columns, place)))
    return readings
