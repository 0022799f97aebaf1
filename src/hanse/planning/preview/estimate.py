"""A preview of a run: data, bytes, time and memory, from a few real steps: `hanse check`."""

import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.data.formats.row import Reading
from hanse.data.tokenization import render
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.dataset import federated_dataset
from hanse.experiment.assembly.privacy import planned_account
from hanse.experiment.schema import Experiment, build_trackers
from hanse.federation.client_sampling import fraction_asked, sample
from hanse.federation.exchange.round import RoundExchange, open_round
from hanse.federation.messages import ClientProfile
from hanse.federation.run import Run
from hanse.federation.server import start
from hanse.journal.privacy_record import PrivacyRecord
from hanse.journal.records import DivisionRecord
from hanse.journal.run_folder import Journal
from hanse.journal.tracking import refuse_missing
from hanse.learners.models.sendable_files import sendable_files
from hanse.observability.memory import available_memory, peak_memory
from hanse.planning.preview import data_formats, row_lengths
from hanse.planning.preview.client_kinds import ClientKind, client_kinds
from hanse.planning.preview.device_use import DeviceUse, device_use
from hanse.planning.preview.link_seconds import LinkSeconds, link_seconds
from hanse.planning.preview.named_models import NamedModelFigures, named_models
from hanse.planning.preview.replay_time import replay_seconds
from hanse.planning.preview.row_lengths import Lengths
from hanse.planning.preview.scoring_time import scoring_seconds
from hanse.planning.preview.traffic import (
    Phases,
    constants_size,
    files_size,
    round_traffic,
    typical,
)
from hanse.planning.preview.training_time import Probe, probe_clients, training_seconds
from hanse.simulation.client_devices import client_devices, decided
from hanse.simulation.in_process import in_process


@dataclass(frozen=True)
class Preview:
    """All that `hanse check` shows."""

    readings: list[tuple[str, Reading]]  # how the columns of each data source were read
    example: list[tuple[str, bool]]  # pieces of the first training example; True: learned
    lengths: dict[Lengths, list[str]]  # of training examples, and the clients that have them
    table: DivisionRecord  # who holds which rows
    trained: int  # parameters
    total: int  # parameters of the base model
    precision: str  # the base model's precision, attention and products
    measured: tuple[str, ...]  # the comparison that decided the precision; empty without one
    kinds: dict[ClientKind, list[str]]  # the clients that train the same; empty if all do
    models: dict[NamedModelFigures, list[str]]  # those beside the trained one, with their users
    traffic: Phases  # bytes of a round, by kind of request and client
    once: int  # bytes more down to a client before its first round: constants and files
    delivered: int | None  # bytes of the model, which silos that lack it are sent; None: not sent
    clients: int
    clients_a_round: int
    terms: tuple[str, ...]  # the aggregator's, as phrases
    account: PrivacyRecord | None  # of all rounds; None if no mechanism promises anything
    links: LinkSeconds | None  # of a round, if links or devices are simulated
    devices: list[DeviceUse]  # those that are simulated, with their clients
    seconds: float  # of the whole run, after the model is loaded
    memory: int  # bytes at the peak
    available: int  # bytes that this process might have used


def preview(experiment: Experiment) -> Preview:
    """Load everything, train a few steps and score a few rows in a folder that is then removed."""
    refuse_missing(build_trackers(experiment))
    available = peak_memory() + available_memory()
    simulation = decided(simulate(experiment))
    with tempfile.TemporaryDirectory(prefix="hanse-check-") as folder:
        journal = Journal(Path(folder))
        try:
            clients = in_process(simulation, Path(folder))
            run = simulation.run(journal, clients)
            return _measured(simulation, run, Path(folder), available)
        finally:
            journal.close()


def _measured(simulation: Simulation, run: Run, folder: Path, available: int) -> Preview:
    """Measure everything on a simulation's parts; available: bytes of memory at the start."""
    settings, learner = simulation.experiment, simulation.learner
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    sampled = _sampled(settings, run, profiles)
    once = constants_size(exchange) + files_size(run.journal.ledger.take(1)[0])
    memories = folder / "clients"  # where the clients have the files
    probes = probe_clients(simulation, exchange, memories)
    shown = simulation.clients[next(iter(probes))]
    if exchange.constants.digest:  # a probe has kept them for all clients
        exchange.server_state.holding.update(profiles)
    training = training_seconds(simulation, probes, settings.rounds * len(sampled) / len(profiles))
    training += replay_seconds(simulation, exchange, len(sampled))
    devices = client_devices(simulation)
    traffic, phases = _rehearsed(simulation, exchange, probes, sampled, memories)
    return Preview(
        readings=data_formats.readings(settings),
        example=render.show(shown.examples["train"][0], shown.learner.backbone.tokenizer),
        lengths=row_lengths.measure(simulation),
        table=federated_dataset.table(simulation.dataset, settings),
        trained=learner.trained_count,
        total=learner.backbone.weights,
        precision=str(learner.backbone.compute_mode),
        measured=tuple(map(str, learner.backbone.measurement.comparisons[-1:])),
        kinds=client_kinds(simulation),
        models=named_models(simulation),
        traffic=traffic,
        once=once,
        delivered=_delivered(settings),
        clients=len(probes),
        clients_a_round=len(sampled),
        terms=run.method.describe(len(sampled)),
        account=planned_account(settings, run.method, simulation.profiles),
        links=link_seconds(simulation, traffic, sampled, devices),
        devices=device_use(simulation, devices),
        seconds=training + settings.rounds * phases + scoring_seconds(simulation, run),
        memory=peak_memory(),
        available=available,
    )


def _rehearsed(
    simulation: Simulation,
    exchange: RoundExchange,
    probes: Mapping[str, Probe],
    sampled: Collection[str],
    folder: Path,
) -> tuple[Phases, float]:
    """The bytes of a round, and the seconds of the aggregator's own phases in it."""
    updates = {name: probe.update for name, probe in probes.items()}
    begin = time.perf_counter()
    traffic = round_traffic(simulation, typical(exchange), updates, sampled, folder)
    has_phases = exchange.run.method.aggregator.has_phases
    return traffic, time.perf_counter() - begin if has_phases else 0.0


def _delivered(settings: Experiment) -> int | None:
    """The bytes of the model's files, if a server sends them; raises UserError if it could not."""
    if not settings.deployment.deliver_model:
        return None
    files = sendable_files(settings.model.model_name_or_path)
    return sum(file.stat().st_size for file in files.values())


def _sampled(
    settings: Experiment, run: Run, profiles: Mapping[str, ClientProfile]
) -> dict[str, ClientProfile]:
    """The clients that the first round asks; behind links they are over-selected."""
    ratio = settings.deployment.over_selection if settings.is_timed else 1.0
    return sample(profiles, fraction_asked(settings.fraction_train, ratio), run.context(1))
