"""What a run would do, found out before it does it: `hanse check`."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hanse.assembly import Silo, Simulation, simulate
from hanse.client import Site, respond
from hanse.data.chat import show
from hanse.errors import UserError
from hanse.experiment import Experiment
from hanse.interfaces import Learner
from hanse.journal import Journal, peak_memory
from hanse.learners.causal_lm import CausalLM
from hanse.messages import Reply
from hanse.randomness import Moment
from hanse.server import Run, conversation, sample, start
from hanse.values import Example, Memory

PROBED = 4  # optimizer steps that are really done, the first on the longest examples
SCORED = 64  # examples that are really scored


@dataclass(frozen=True)
class Preview:
    """What `hanse check` shows."""

    example: list[tuple[str, bool]]  # pieces of the first training example; True: learned
    labels: list[str]  # the columns of `table`; empty if rows have no labels
    table: dict[str, list[int]]  # client → its training rows by label (or just their number)
    trained: int  # parameters
    total: int  # parameters of the base model
    down: dict[str, int]  # client → bytes of a round's request
    up: dict[str, int]  # client → bytes of its reply
    clients_a_round: int
    seconds: float  # of the whole run, after the model is loaded
    memory: int  # bytes at the peak


def preview(experiment: Experiment) -> Preview:
    """Load everything, train a few steps and score a few rows in a folder that is then removed."""
    simulation = simulate(experiment)
    with tempfile.TemporaryDirectory(prefix="hanse-check-") as folder:
        journal = Journal(Path(folder))
        try:
            return _measured(simulation, simulation.run(journal), Path(folder))
        finally:
            journal.close()


def _measured(simulation: Simulation, run: Run, folder: Path) -> Preview:
    settings = simulation.experiment
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = conversation(run, 1, start(run, profiles), profiles)
    down: dict[str, int] = {}
    up: dict[str, int] = {}
    training = 0.0
    probes: dict[str, tuple[Reply, float]] = {}
    for name in exchange.orders:
        silo, request = simulation.silos[name], exchange.encoded("train", name).pack()
        alike = silo.experiment.model_dump_json()
        if alike not in probes:  # clients with the same settings answer alike
            probes[alike] = _probe(simulation.site(folder, name), silo, request)
        reply, seconds_a_token = probes[alike]
        down[name] = len(request)
        up[name] = len(replace(reply, client=name).pack())
        training += seconds_a_token * _tokens_a_round(silo)
    chosen = len(sample(profiles, settings.fraction_train, Moment(settings.seed, 1)))
    learner = simulation.learner
    trained = sum(p.numel() for p in learner.parameters().values())
    return Preview(
        example=show(
            simulation.silos[next(iter(up))].examples["train"][0], learner.backbone.tokenizer
        ),
        labels=sorted(simulation.division.labels),
        table=_table(simulation),
        trained=trained,
        total=sum(
            p.numel() for n, p in learner.backbone.model.named_parameters() if "lora_" not in n
        ),
        down=down,
        up=up,
        clients_a_round=chosen,
        seconds=training * settings.rounds * chosen / len(profiles) + _scoring(simulation, run),
        memory=peak_memory(),
    )


def _probe(site: Site, silo: Silo, request: bytes) -> tuple[Reply, float]:
    """A client's real answer after a few steps, and its seconds for a token.

    The first steps are on the longest examples, so that the peak of memory is met, and are not
    timed: they also warm the machine up.
    """
    train = silo.examples["train"]
    size = silo.experiment.train.per_device_train_batch_size * PROBED
    longest = sorted(train, key=len)[-size:]
    drawn = torch.randperm(len(train), generator=Moment(0).generator("probe"))[:size].tolist()
    _answer(site, silo, request, longest)
    reply = _answer(site, silo, request, [train[index] for index in drawn])
    return reply, reply.update.numbers["seconds"] / reply.update.numbers["tokens"]


def _answer(site: Site, silo: Silo, request: bytes, train: Sequence[Example]) -> Reply:
    """The reply after a few steps on these examples."""
    brief = replace(silo.experiment.train, max_steps=PROBED, num_train_epochs=None)

    def learner(moment: Moment, kept: Memory) -> Learner:
        whole = site.learner(moment, kept)
        assert isinstance(whole, CausalLM)  # what a simulation's silos hold
        return replace(whole, splits={"train": train}, training=brief)

    reply = Reply.parse(respond(replace(site, learner=learner), request))
    if reply.error:
        raise UserError(reply.error)
    return reply


def _tokens_a_round(silo: Silo) -> float:
    """Tokens that a client trains on in one round, by the mean length of its examples."""
    train, settings = silo.examples["train"], silo.experiment.train
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    return settings.steps(len(train)) * size * sum(map(len, train)) / len(train)


def _scoring(simulation: Simulation, run: Run) -> float:
    """Seconds that the run spends on evaluation, from scoring a few rows of every length."""
    schedule, learner = run.schedule, simulation.learner
    rows = learner.examples("validation") or learner.examples("test")
    if not rows:
        return 0.0
    probe = rows[:: max(1, len(rows) // SCORED)]
    begin = time.perf_counter()
    for task in run.tasks.values():
        task.evaluate(replace(learner, splits={"probe": probe}), "probe")
    a_token = (time.perf_counter() - begin) / sum(map(len, probe))
    looks = schedule.rounds // schedule.validate_every + 1 if schedule.validate_every else 1
    tokens = looks * sum(map(len, learner.examples("validation")))
    if schedule.test:
        tokens += (1 if schedule.test == "last" else 2) * sum(map(len, learner.examples("test")))
    if schedule.evaluate_clients:
        held = [silo.examples["test"] for silo in simulation.silos.values()]
        tokens += sum(len(example) for split in held for example in split)
    return a_token * tokens


def _table(simulation: Simulation) -> dict[str, list[int]]:
    """Clients × labels: how many training rows of each label every client has."""
    labels = sorted(simulation.division.labels)
    table = {}
    for name, rows in simulation.division.train.items():
        counts = Counter(row.label for row in rows)
        table[name] = [counts[label] for label in labels] if labels else [len(rows)]
    return table
