"""A run from its experiment to its finished folder, the clients on other machines.

The same command goes on with a run that was stopped or killed: the run folder knows where it was.
"""

import json
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.data import holdout
from hanse.data.sources.split_files import TEST, VALIDATION
from hanse.deployment.envelopes import NUMBERS, BadEnvelopeError, Envelope, Envelopes, Open, Sign
from hanse.deployment.flower import home
from hanse.deployment.flower.processes import refuse_busy
from hanse.deployment.flower.superlink import FlowerLink, Tls
from hanse.deployment.server.agreement_relay import Agreeing
from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.server.status import Watch
from hanse.deployment.silo.settings import is_loopback
from hanse.deployment.sockets import listening
from hanse.errors import UserError, terminable
from hanse.experiment import loading
from hanse.experiment.assembly import execute, federated_dataset, source_rows
from hanse.experiment.assembly.assemble import RUNS, Simulation, simulate
from hanse.experiment.assembly.federated_dataset import FederatedDataset
from hanse.experiment.assembly.resources import Resources, adapter_settings
from hanse.experiment.schema import Experiment, build_algorithm, build_objective, build_trackers
from hanse.journal import environment, yaml_text
from hanse.journal.records import DEPLOYED
from hanse.journal.run_folder import Journal
from hanse.journal.tracking import refuse_missing
from hanse.learners.adapters.lora import Lora
from hanse.learners.models.model_hash import hash_of
from hanse.learners.models.precision import compute_modes_from_json
from hanse.observability.json_logs import LogFormat, console_lines, log_file
from hanse.observability.metrics_endpoint import shown
from hanse.registry import name_of
from hanse.security.kits import SERVER, ServerKit, open_server
from hanse.security.signatures import Inbox, Outbox, Untrusted

log = logging.getLogger(__name__)

SEEN = "answers-seen.json"  # which signed answers have come, so that none is taken twice
FLOWER = "flower"  # the folder of Flower's own files
# What a silo may send at once, in bytes: for each trained number, as of four tensors of float32
# (SCAFFOLD sends two, masks for secure sums take two); and for all else.
WIDEST, ROOM = 16, 64 * 2**20


@dataclass(frozen=True)
class Address:
    """Where the server listens, and the folder of keys by which silos and it know each other."""

    host: str = "127.0.0.1"
    port: int = 8000
    kit: Path | None = None


def serve(
    experiment: Experiment,
    address: Address,
    status_port: int | None = None,
    logs: LogFormat = LogFormat.TEXT,
) -> Path:
    """Serve an experiment to its silos until it is done; its run folder, finished.

    status_port: where on this machine /healthz and /metrics are.
    """
    home.refuse_missing()  # before the model is loaded
    refuse_missing(build_trackers(experiment))
    _refuse_unfit(experiment)
    _refuse_open(address)
    kit, wanted = open_server(address.kit) if address.kit else None, experiment.participant_names
    if kit is not None:
        _refuse_unknown(kit, wanted)
    refuse_busy(address.host, address.port)  # before the model is loaded
    folder = Path(experiment.output_dir or RUNS / experiment.name).expanduser()
    if execute.finished(folder):
        log.info("%s is finished; choose another output_dir for a new run", folder)
        return folder
    watch = Watch(folder, experiment.rounds, wanted)
    with console_lines(logs, watch.about), shown(status_port, watch.status), terminable():
        return _serve(experiment, address, kit, watch)


def _serve(experiment: Experiment, address: Address, kit: ServerKit | None, watch: Watch) -> Path:
    """Load what the server needs, and let the run go on in its folder."""
    folder, wanted, held = watch.folder, experiment.participant_names, Resources()
    if (folder / "experiment.yaml").is_file():
        held.compute_modes |= compute_modes_from_json(environment.follow(folder))
    made = simulate(experiment, held, _unseen(experiment), only=())
    journal = _journal(folder, made)
    plan = experiment.deployment
    most = ROOM + WIDEST * sum(each.numel() for each in made.learner.parameters().values())
    with (
        closing(journal),
        log_file(folder, watch.about),
        _engine(folder / FLOWER, address, kit, most) as engine,
    ):
        sign, opened = _signed(kit, folder) if kit else (None, None)
        envelopes = Envelopes(_envelope(folder, made), sign, opened, _adapters(made))
        silos = RemoteClients(engine, wanted, envelopes, plan.needed(len(wanted)), plan.deadline)
        journal.ledger.run_id = envelopes.envelope.run
        watch.silos = silos
        federation = _agreeing(silos) if kit is not None else silos
        run = made.run(journal, federation)
        with execute.stoppable() as stop:
            silos.stop = stop.is_set
            return execute.go(made, run, stop, again="the same command")


def _agreeing(silos: RemoteClients) -> Agreeing:
    envelope = silos.envelopes.envelope
    return Agreeing(silos, envelope.settings, run=envelope.run)


@contextmanager
def _engine(
    folder: Path, address: Address, kit: ServerKit | None, most: int
) -> Iterator[FlowerLink]:
    tls = Tls(*kit.certificates) if kit else None
    keys = [public.node for public in kit.silos.values()] if kit else []
    with listening() as listener:
        engine = FlowerLink(folder, address.host, address.port, listener, tls, keys, most)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


def _signed(kit: ServerKit, folder: Path) -> tuple[Sign, Open]:
    """How letters are signed, and answers opened."""
    out = Outbox(SERVER, kit.signing)
    inbox = Inbox(SERVER, "reply", kit.known, folder / SEEN)

    def sign(body: bytes, run: str, round: int, name: str) -> tuple[bytes, int]:
        message, stamp = out.request(body, run, round, name)
        return message, stamp.sequence

    def opened(data: bytes, run: str) -> tuple[str, int, bytes]:
        try:
            stamp, body = inbox.open(data, run)
        except Untrusted as error:
            raise BadEnvelopeError(f"{error}.") from None
        return stamp.sender, stamp.sequence, body

    return sign, opened


def _refuse_open(address: Address) -> None:
    """Raise UserError for a server that others could reach, and that knows nobody."""
    if address.kit is None and not is_loopback(address.host):
        raise UserError(
            f"{address.host} can be reached from other machines, and without a kit neither side "
            "could tell who the other is; run `hanse kit init` and name it by --kit, or leave "
            "--host out."
        )


def _refuse_unknown(kit: ServerKit, names: Sequence[str]) -> None:
    """Raise UserError for silos that could not join."""
    if unknown := [name for name in names if name not in kit.silos]:
        raise UserError(
            f"{', '.join(unknown)} of this experiment {'is' if len(unknown) == 1 else 'are'} not "
            f"enrolled in {kit.folder}, which has {', '.join(kit.silos) or 'no silos'}; run `hanse "
            "kit enrol` for each, or give the clients those names."
        )


def _refuse_unfit(experiment: Experiment) -> None:
    """Raise UserError for what a deployment cannot have."""
    data = experiment.data
    if data.pooled:
        raise UserError("data.pooled puts all rows in one place, which silos would not do.")
    named = [split for split in (TEST, VALIDATION) if isinstance(getattr(data, split), str)]
    if named and not experiment.brings_own_data:
        raise UserError(
            f"data.{named[0]} names a file, and every silo would need a copy of it beside that of "
            "data.path; set how many rows to hold out, or give each silo a file of its own."
        )
    drawn = [data.test, data.validation]
    if experiment.brings_own_data and any(size and not isinstance(size, str) for size in drawn):
        raise UserError(
            "every client has its own data here, so the server has no rows that it could hold "
            "out; name files of its own in data.test and data.validation, or set them to 0 and let "
            "each silo score its own rows: data.client_test."
        )
    labelled = build_objective(experiment).example_kind in ("label_words", "tags")
    if experiment.brings_own_data and labelled and not data.labels:
        raise UserError(
            "the server sees no rows, so it cannot find their labels; write them down in "
            "data.labels, such as {0: negative, 1: positive}."
        )
    loading.refuse_foreign(experiment)


def _unseen(experiment: Experiment) -> FederatedDataset | None:
    """The division if the silos have all rows; the server sees those of its own test files."""
    if not experiment.brings_own_data:
        return None
    remarks = list(federated_dataset.unseen(experiment))
    validation, test = (
        source_rows.official(experiment.data, split, remarks.append) for split in (VALIDATION, TEST)
    )
    found = source_rows.Gathered([], validation, test, None, remarks)
    held = holdout.without(validation or [], test or []), test or []
    digest = found.digest if found.every else ""
    return FederatedDataset(*held, {}, {}, experiment.data.labels, digest, tuple(remarks))


def _journal(folder: Path, made: Simulation) -> Journal:
    """The run folder's journal: a new one, or the one that was begun with the same settings."""
    resolved = made.experiment.model_copy(update={"clients_per_pass": "off"}).resolved()
    text = yaml_text.dump(resolved)
    begun = folder / "experiment.yaml"
    if (former := atomic_files.read(begun)) is None:
        journal = Journal.create(folder, text)
        precision = {name: asdict(chosen) for name, chosen in made.resources.compute_modes.items()}
        environment.note(folder, made.dataset.digest, None, precision)
        federated_dataset.note(folder, made.dataset, made.experiment)
        log.info("run folder %s", folder)
        return journal
    if former != text.encode():
        values, _ = yaml_text.read(begun)
        other = [key for key in resolved if values.get(key) != resolved[key]]
        raise UserError(
            f"{folder} was begun with other settings ({', '.join(other) or 'as text'}); bring them "
            "back to go on with it, or choose another output_dir."
        )
    environment.same_data(folder, made.dataset.digest)
    log.info("going on with %s", folder)
    return Journal(folder)


def _name(folder: Path) -> str:
    """The name by which silos know a run; it stays the same over restarts."""
    file = folder / DEPLOYED
    if (name := atomic_files.read(file)) is None:
        atomic_files.write(file, name := secrets.token_hex(16).encode())
    return name.decode()


def _envelope(folder: Path, made: Simulation) -> Envelope:
    """What every silo is told: the settings, which rows are divided, how models compute."""
    values = made.experiment.resolved()
    values |= {"output_dir": None, "report_to": [], "clients_per_pass": "off"}
    if made.experiment.adapter.source is not None:  # a folder of this machine's
        _refuse_afresh(made.experiment)
        kinds = adapter_settings(made.experiment).kinds
        values["adapter"] = {name_of(kind): asdict(kind) for kind in kinds}  # type: ignore[call-overload]
    chosen = made.resources.compute_modes.get(made.experiment.model.compute_mode_key)
    precision = json.dumps(asdict(chosen)) if chosen else ""
    model = _shared_model(made.experiment)
    return Envelope(_name(folder), yaml_text.dump(values), made.dataset.digest, model, precision)


def _adapters(made: Simulation) -> dict[str, dict[str, float]]:
    """The rank and the scaling of each client's adapter, as far as settings tell them."""
    common = adapter_settings(made.experiment)
    known = {}
    for name in made.experiment.participant_names:
        own = made.experiment.for_client(name).adapter.fresh
        if own is None or own == common:
            known[name] = (float(made.learner.rank), made.learner.scaling)
        elif isinstance(own, Lora):
            known[name] = (float(own.r), own.scaling)
    return {name: dict(zip(NUMBERS, numbers, strict=True)) for name, numbers in known.items()}


def _refuse_afresh(experiment: Experiment) -> None:
    """What silos are never sent could not begin as the adapter is."""
    algorithm = build_algorithm(experiment)
    if algorithm.personalizes or algorithm.redraws:
        raise UserError(
            f"with {type(algorithm).__name__} silos are never sent some tensors, which would begin "
            f"afresh and not as in {experiment.adapter.source}; leave adapter.from out, or choose "
            "an algorithm that sends all, such as fedavg."
        )


def _shared_model(experiment: Experiment) -> str:
    """The hash of the base model that all clients have; empty if it lies not here, or they differ.

    What the server itself scores with is the experiment's own.
    """
    own = (experiment.for_client(name).model for name in experiment.participant_names)
    if {model.model_name_or_path for model in own} != {experiment.model.model_name_or_path}:
        return ""
    return hash_of(experiment.model.model_name_or_path) or ""
