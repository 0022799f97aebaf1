"""Serve an experiment to silos on other machines until the run is finished.

The same command resumes a run that was stopped or killed, from the state in its run folder.
"""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from hanse import atomic_files
from hanse.data import holdout
from hanse.data.sources.split_files import TEST, VALIDATION
from hanse.deployment.envelopes import NUMBERS, BadEnvelopeError, Envelope, Envelopes, Open, Sign
from hanse.deployment.flower import home
from hanse.deployment.flower.processes import refuse_busy
from hanse.deployment.flower.superlink import FlowerLink, Tls
from hanse.deployment.server.agreement_relay import AgreementRelay
from hanse.deployment.server.job_text import job_text
from hanse.deployment.server.model_delivery import ModelDelivery, files_of
from hanse.deployment.server.preconditions import (
    refuse_open,
    refuse_unfit,
    refuse_unidentified,
    refuse_unknown,
)
from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.server.status import Watch
from hanse.deployment.sockets import listening
from hanse.errors import UserError, terminable
from hanse.experiment import loading
from hanse.experiment.assembly import client_adapters, execute, marks
from hanse.experiment.assembly.assemble import RUNS, Simulation, simulate
from hanse.experiment.assembly.dataset import federated_dataset, source_rows
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.assembly.resources import Resources, adapter_settings
from hanse.experiment.model_hashes import model_hashes
from hanse.experiment.schema import Experiment, build_trackers
from hanse.journal import environment, yaml_text
from hanse.journal.records import DEPLOYED
from hanse.journal.run_folder import Journal
from hanse.journal.tracking import refuse_missing
from hanse.learners.adapters.lora import Lora
from hanse.learners.models.model_hash import hash_of
from hanse.learners.models.precision import compute_modes_from_json
from hanse.observability.json_logs import LogFormat, console_lines, log_file
from hanse.observability.metrics_endpoint import shown
from hanse.security.kits import SERVER, ServerKit, open_server
from hanse.security.signatures import Inbox, Outbox, Untrusted

log = logging.getLogger(__name__)

SEEN = "answers-seen.json"  # the signed replies that have come; none is accepted twice
FLOWER = "flower"  # the folder of Flower's files
# The largest message of a silo has 16 bytes for each trained parameter, which is four tensors of
# float32 (SCAFFOLD sends two, the masks of secure sums take two), and 64 MiB for everything else.
BYTES_PER_PARAMETER, OTHER_BYTES = 16, 64 * 2**20


@dataclass(frozen=True)
class Address:
    """The address on which the server listens, and its kit: the folder of its and silos' keys."""

    host: str = "127.0.0.1"
    port: int = 8000
    kit: Path | None = None


def serve(
    experiment: Experiment,
    address: Address,
    status_port: int | None = None,
    logs: LogFormat = LogFormat.TEXT,
) -> Path:
    """Serve an experiment to its silos until it is finished; returns its run folder.

    status_port: the port on this machine for /healthz and /metrics.
    """
    home.refuse_missing()  # before the model is loaded
    refuse_missing(build_trackers(experiment))
    refuse_unfit(experiment)
    refuse_open(address.host, address.kit)
    refuse_unidentified(experiment, address.kit)
    kit, names = open_server(address.kit) if address.kit else None, experiment.participant_names
    if kit is not None:
        refuse_unknown(kit, names)
    refuse_busy(address.host, address.port)  # before the model is loaded
    if experiment.deployment.deliver_model:
        files_of(experiment)  # refuses a model that cannot be sent
    folder = Path(experiment.output_dir or RUNS / experiment.name).expanduser()
    if execute.finished(folder):
        log.info("%s is finished; choose another output_dir for a new run", folder)
        return folder
    watch = Watch(folder, experiment.rounds, names)
    with console_lines(logs, watch.about), shown(status_port, watch.status), terminable():
        return _serve(experiment, address, kit, watch)


def _serve(experiment: Experiment, address: Address, kit: ServerKit | None, watch: Watch) -> Path:
    """Load the model and the test rows, start Flower, and run the rounds in the run's folder."""
    _warn_of_simulated_parts(experiment)
    folder, resources = watch.folder, Resources()
    if (folder / "experiment.yaml").is_file():
        marks.pin_servers_key(experiment, folder)
        resources.compute_modes |= compute_modes_from_json(environment.follow(folder))
    simulation = simulate(experiment, resources, _server_dataset(experiment), only=())
    layouts = client_adapters.expected(simulation.learner, simulation.experiment)
    journal = _journal(folder, simulation)
    marks.pin_servers_key(experiment, folder)
    parameters = sum(tensor.numel() for tensor in simulation.learner.parameters().values())
    largest = OTHER_BYTES + BYTES_PER_PARAMETER * parameters
    names, deployment = watch.names, experiment.deployment
    quorum = deployment.needed(len(names))
    with (
        closing(journal),
        log_file(folder, watch.about),
        _engine(folder / FLOWER, address, kit, largest) as engine,
    ):
        sign, open_reply = _signatures(kit, folder) if kit else (None, None)
        envelopes = Envelopes(
            _envelope(folder, simulation),
            sign,
            open_reply,
            _adapter_sizes(simulation),
            layouts,
        )
        sends = deployment.deliver_model
        delivery = ModelDelivery(files_of(experiment), journal.ledger) if sends else None
        silos = RemoteClients(engine, names, envelopes, quorum, deployment.deadline, delivery)
        journal.ledger.run_id = envelopes.envelope.run
        watch.silos = silos
        relayed = kit is not None and not simulation.method.aggregator.agrees
        transport = _agreement_relay(silos) if relayed else silos
        run = simulation.run(journal, transport)
        with execute.stoppable() as stop:
            silos.stop = stop.is_set
            return execute.go(simulation, run, stop, again="the same command")


def _warn_of_simulated_parts(experiment: Experiment) -> None:
    """Say which settings of a simulation have no effect in a deployment."""
    if experiment.has_links:
        log.warning("links has no effect here: it simulates links, and those of silos are real")
    if experiment.has_devices:
        log.warning("device has no effect here: silos train on machines of their own")


def _agreement_relay(silos: RemoteClients) -> AgreementRelay:
    envelope = silos.envelopes.envelope
    return AgreementRelay(silos, envelope.settings, run=envelope.run)


@contextmanager
def _engine(
    folder: Path, address: Address, kit: ServerKit | None, largest: int
) -> Iterator[FlowerLink]:
    """Flower's SuperLink, started. largest: bytes of the largest message that it accepts."""
    tls = Tls(*kit.certificates) if kit else None
    keys = [public.node for public in kit.silos.values()] if kit else []
    with listening() as listener:
        engine = FlowerLink(folder, address.host, address.port, listener, tls, keys, largest)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


def _signatures(kit: ServerKit, folder: Path) -> tuple[Sign, Open]:
    """The functions that sign envelopes, and verify and open the silos' replies."""
    outbox = Outbox(SERVER, kit.signing)
    inbox = Inbox(SERVER, "reply", kit.known, folder / SEEN)

    def sign(body: bytes, run: str, round: int, name: str) -> tuple[bytes, int]:
        message, stamp = outbox.request(body, run, round, name)
        return message, stamp.sequence

    def open_reply(data: bytes, run: str) -> tuple[str, int, bytes]:
        try:
            stamp, body = inbox.open(data, run)
        except Untrusted as error:
            raise BadEnvelopeError(f"{error}.") from None
        return stamp.sender, stamp.sequence, body

    return sign, open_reply


def _server_dataset(experiment: Experiment) -> FederatedDataset | None:
    """The rows of the server's own test files; None if one file is divided among the silos."""
    if not experiment.brings_own_data:
        return None
    remarks = list(federated_dataset.unseen(experiment))
    validation, test = (
        source_rows.official(experiment, split, remarks.append) for split in (VALIDATION, TEST)
    )
    rows = source_rows.Gathered([], validation, test, None, remarks)
    held_out = holdout.without(validation or [], test or []), test or []
    digest = rows.digest if rows.every else ""
    public = source_rows.public(experiment, remarks.append)
    remarks += federated_dataset.in_public(public, [*chain(*held_out)])
    remarks = list(dict.fromkeys(remarks))  # one file may be read for both splits
    labels = experiment.data.labels
    return FederatedDataset(*held_out, {}, {}, labels, digest, tuple(remarks), public)


def _journal(folder: Path, simulation: Simulation) -> Journal:
    """The journal of the run folder: a new one, or that of a run with the same settings."""
    resolved = simulation.experiment.model_copy(update={"clients_per_pass": "off"}).resolved()
    text = yaml_text.dump(resolved)
    file = folder / "experiment.yaml"
    if (former_text := atomic_files.read(file)) is None:
        journal = Journal.create(folder, text)
        resources, dataset = simulation.resources, simulation.dataset
        modes = {name: asdict(mode) for name, mode in resources.compute_modes.items()}
        public, measured = dataset.public.digest, resources.measurements
        models = model_hashes(simulation.experiment, clients=False)
        environment.note(folder, dataset.digest, None, modes, public, measured, models)
        federated_dataset.note(folder, simulation.dataset, simulation.experiment)
        log.info("run folder %s", folder)
        return journal
    if former_text != text.encode():
        former = loading.load_left(file).resolved()  # with defaults for what earlier versions lack
        if changed := [key for key in resolved if former[key] != resolved[key]]:
            raise UserError(
                f"{folder} has a run with other settings ({', '.join(changed)}); restore them to "
                "resume it, or choose another output_dir."
            )
    environment.same_data(folder, simulation.dataset.digest, simulation.dataset.public.digest)
    environment.same_models(folder, model_hashes(simulation.experiment, clients=False))
    log.info("going on with %s", folder)
    return Journal(folder)


def _name(folder: Path) -> str:
    """The unique name of a run, which stays the same when the server is restarted."""
    file = folder / DEPLOYED
    if (name := atomic_files.read(file)) is None:
        atomic_files.write(file, name := secrets.token_hex(16).encode())
    return name.decode()


def _envelope(folder: Path, simulation: Simulation) -> Envelope:
    """The envelope for all silos: settings, precision, hashes of rows, base model and code."""
    experiment = simulation.experiment
    mode = simulation.resources.compute_modes.get(experiment.model.compute_mode_key)
    dataset, code = simulation.dataset, loading.outside_code(experiment)
    for name, sha256 in code.items():
        log.info("each silo must have its own copy of %s, SHA-256 %s", name, sha256)
    return Envelope(
        _name(folder),
        job_text(experiment),
        rows=dataset.digest,
        public=dataset.public.digest,
        model=_shared_model(experiment),
        precision=json.dumps(asdict(mode)) if mode else "",
        code=json.dumps(code, sort_keys=True) if code else "",
    )


def _adapter_sizes(simulation: Simulation) -> dict[str, dict[str, float]]:
    """The rank and the scaling of each client's adapter whose settings give them."""
    experiment = simulation.experiment
    common, sizes = adapter_settings(experiment), {}
    for name in experiment.participant_names:
        choice = experiment.for_client(name).adapter
        adapter = choice.fresh
        if choice == experiment.adapter or adapter == common:
            sizes[name] = (float(simulation.learner.rank), simulation.learner.scaling)
        elif isinstance(adapter, Lora):
            sizes[name] = (float(adapter.r), adapter.scaling)
    return {name: dict(zip(NUMBERS, numbers, strict=True)) for name, numbers in sizes.items()}


def _shared_model(experiment: Experiment) -> str:
    """The hash of the base model that all clients have.

    It is empty if their models differ, or if the model is not on this machine.
    """
    models = (experiment.for_client(name).model for name in experiment.participant_names)
    if {model.model_name_or_path for model in models} != {experiment.model.model_name_or_path}:
        return ""
    return hash_of(experiment.model.model_name_or_path) or ""
