"""From an experiment to its learners, its clients and its run."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from hanse.data.example import Example
from hanse.data.tokenization.token_cache import Tokenized
from hanse.experiment.assembly import client_adapters, emulated, in_place, privacy, quorum
from hanse.experiment.assembly.dataset import client_examples, cut_rows
from hanse.experiment.assembly.dataset.client_examples import SERVER, Reader, SplitRows
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.assembly.marks import owners_of
from hanse.experiment.assembly.method import build_method, method_remarks, refuse_unserved
from hanse.experiment.assembly.named_models import Examples, Holders, by_holder, naming
from hanse.experiment.assembly.preconditions import refuse_unmet
from hanse.experiment.assembly.resources import Resources, outputs, replaced_head
from hanse.experiment.assembly.schedule import schedule_of
from hanse.experiment.assembly.shared_batches import compare_readers
from hanse.experiment.schema import Experiment, build_algorithm, build_tasks
from hanse.federation.client import ClientEndpoint
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.declarations import Difference
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory, TrainResult
from hanse.federation.interfaces.task import Task
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.journal import yaml_text
from hanse.journal.run_folder import Journal
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.batched_clients.member import Member
from hanse.learners.batched_clients.train import train
from hanse.learners.models.label_outputs import listed
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.randomness import RoundContext
from hanse.security.identity import Identity, simulated
from hanse.tensors.named import Tensors

log = logging.getLogger(__name__)

RUNS = Path("runs")
ALONE = (
    "one silo is no federation: nothing is averaged, and the run is ordinary fine-tuning; set "
    "num_clients to 2 or more, or give each of several clients a file of its own "
    "(clients.<name>.data.path)."
)


@dataclass(frozen=True)
class SimulatedClient:
    """One simulated client: its settings, and the learner that each request gets a copy of.

    layout: of what it trains, if the algorithm asks.
    """

    experiment: Experiment
    learner: AdaptedModel
    layout: Tensors | None

    @property
    def examples(self) -> Mapping[str, Sequence[Example]]:
        """Its examples by split."""
        return self.learner.splits

    def profile(self, name: str) -> ClientProfile:
        """The client as the server knows it."""
        numbers = {"rank": float(self.learner.rank), "scaling": self.learner.scaling}
        return ClientProfile(name, len(self.examples["train"]), numbers, self.layout)


@dataclass
class Simulation:
    """The parts of a run before its journal is opened."""

    experiment: Experiment
    resources: Resources
    dataset: FederatedDataset
    learner: AdaptedModel
    clients: dict[str, SimulatedClient]

    @cached_property
    def method(self) -> Method:
        """The server's method; each client has a copy."""
        return build_method(self.experiment)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The server's tasks by name; each client has copies."""
        return build_tasks(self.experiment)

    @property
    def profiles(self) -> list[ClientProfile]:
        """The clients as the server knows them, in client order."""
        return [client.profile(name) for name, client in self.clients.items()]

    @cached_property
    def job(self) -> str:
        """A digest of the settings, by which clients of a simulation know the job."""
        return hashlib.sha256(yaml_text.dump(self.experiment.resolved()).encode()).hexdigest()

    def run(self, journal: Journal, transport: Transport) -> Run:
        """The run with the clients that a transport reaches."""

        def learner(context: RoundContext, optimizer_state: Memory) -> AdaptedModel:
            return self.learner.for_request(context, optimizer_state)

        schedule = schedule_of(self.experiment, transport)
        parts = (schedule, self.method, transport, learner, self.tasks, journal)
        sampling = partial(privacy.sampling, self.experiment)
        return Run(*parts, self.experiment.compression.collect, sampling=sampling)

    def identity(self, name: str) -> Identity:
        """The keys of a client of a simulation; a deployed one has those of its kit."""
        return simulated(self.experiment.seed, name, self.clients.keys())

    def endpoint(
        self,
        memories: Path,
        name: str,
        checkpoint_seconds: float | None = None,
        together: Callable[[Member], TrainResult] | None = None,
    ) -> ClientEndpoint:
        """One client's endpoint, with its memory in a folder below `memories`.

        checkpoint_seconds: seconds of training between two training checkpoints; None: no
            checkpoints.
        together: trains the client in a batch with others; None: it trains by itself.
        """
        client = self.clients[name]
        if together is None and self.experiment.clients_per_pass != "off":  # noqa: S105
            together = _train_alone
        model = replace(client.learner, together=together)

        def learner(context: RoundContext, state: Memory) -> Learner:
            checkpoint, mark = None, model.mark and model.mark.for_request(memories / name)
            if checkpoint_seconds is not None:
                checkpoint = TrainingCheckpoint(memories / name / "training", checkpoint_seconds)
            return replace(model.for_request(context, state), checkpoint=checkpoint, mark=mark)

        return ClientEndpoint(
            profile=client.profile(name),
            learner=learner,
            method=self.method.for_client(name),
            tasks={name: copy(task) for name, task in self.tasks.items()},
            store=MemoryStore(memories / name),
            seed=self.experiment.seed,
            rounds=self.experiment.rounds,
            clients=quorum.awaited(self.experiment),
            job=self.job,
            quorum=quorum.simulated(self.experiment),
            participants=self.clients.keys(),
        )


def _train_alone(member: Member) -> TrainResult:
    """Train one client as a batch of its own, which computes like every other batch."""
    return train([member])[0]


def simulate(
    experiment: Experiment,
    resources: Resources | None = None,
    dataset: FederatedDataset | None = None,
    only: Collection[str] | None = None,
    begun: bool = False,
) -> Simulation:
    """Load what the experiment names and check that it fits together; nothing is written.

    resources: those in memory, when several runs follow each other.
    dataset: the rows of each client, if not all of them are on this machine.
    only: the clients that are assembled; the others are on other machines.
    begun: whether data.labels already has the labels in the order of the model's outputs.
    """
    method = _served_method(experiment, only)  # raises UserError before anything is loaded
    experiment = emulated.prepared(in_place.prepared(experiment), server=not only)
    (resources := resources or Resources()).clear_adapters()  # those of an earlier run
    dataset = dataset or resources.dataset(experiment)
    experiment = _labelled(experiment, dataset.labels)
    settings = {name: experiment.for_client(name) for name in experiment.participant_names}
    refuse_unmet(experiment, dataset, settings, only)
    settings = {n: own for n, own in settings.items() if only is None or n in only}
    notes = privacy.require_rows(experiment, method, settings, dataset)
    owners = owners_of(experiment, method, settings, server=not only)
    used = by_holder(experiment, settings, server=not only)
    rows = [*client_examples.split_rows(experiment, settings, dataset, used), *owners.rows()]
    client_examples.refuse_unfit(rows, dataset.labels)
    if not (begun or only):  # a silo gets the order of the labels from the server
        dataset = _in_order_of_outputs(experiment, dataset)
        experiment = _labelled(experiment, dataset.labels)
    examples = client_examples.read(rows, partial(_tokenized, resources, dataset.labels))
    privacy.require_examples(experiment, method, dataset, examples)
    holders = Holders(resources, examples, used, owners)
    learner, differ = _server(holders, experiment), build_algorithm(experiment).clients_may_differ
    clients = {n: _simulated_client(holders, learner, n, experiment, differ) for n in settings}
    notes += compare_readers(experiment, learner, [own.learner for own in clients.values()])
    notes += [*_notes(experiment, method, learner, only), *owners.remarks(learner)]
    unread = client_examples.unread_columns(rows, learner.backbone.head.reads)
    remarks = (*dataset.remarks, *unread, *_cut(examples, experiment, learner, clients), *notes)
    return Simulation(experiment, resources, replace(dataset, remarks=remarks), learner, clients)


def _served_method(experiment: Experiment, only: Collection[str] | None) -> Method:
    """The method; raises UserError if this run cannot be served by it."""
    method = build_method(experiment)
    if not only:  # a silo is not told of the others
        refuse_unserved(experiment, timed=only is not None or experiment.is_timed)
        privacy.require(experiment, method)
    in_place.refuse_unfit(experiment)
    return method


def _in_order_of_outputs(experiment: Experiment, dataset: FederatedDataset) -> FederatedDataset:
    """The data with the labels in the order of the model's outputs, and a remark on a new head."""
    labels = outputs(experiment, dataset.labels)
    remarks = (*dataset.remarks, *replaced_head(experiment, labels))
    return replace(dataset, labels=labels, remarks=remarks)


def _notes(
    experiment: Experiment, method: Method, learner: AdaptedModel, only: Collection[str] | None
) -> list[str]:
    """Remarks on the method; `only` as in `simulate`."""
    notes = [*in_place.remarks(experiment), *emulated.remarks(experiment, server=not only)]
    notes += method_remarks(experiment, only is None)
    notes += [] if only else privacy.remarks(experiment, method, learner.parameters())
    return notes + [ALONE] * (only is None and _is_alone(experiment))


def _is_alone(experiment: Experiment) -> bool:
    """True if there is one client only, and not just one that takes part or holds all rows."""
    return len(experiment.client_names) == 1 and not experiment.data.pooled


def _tokenized(resources: Resources, labels: Mapping[str, str], split: SplitRows) -> Tokenized:
    """The tokenized rows that a split's rows belong to."""
    with naming(split.reader.name):
        return resources.reader(split, labels)


def _cut(
    examples: Examples,
    experiment: Experiment,
    server: AdaptedModel,
    clients: Mapping[str, SimulatedClient],
) -> Iterator[str]:
    """Remarks on the rows that max_length cuts, for each model."""
    holders = {name: (client.experiment, client.learner) for name, client in clients.items()}
    holders[SERVER] = experiment, server
    return cut_rows.cut(examples, cut_rows.reading_limits(examples, experiment, holders))


def _server(holders: Holders, experiment: Experiment) -> AdaptedModel:
    """The server's learner, with the tensors of the adapter that the run continues from."""
    examples, context = holders.examples[Reader(SERVER)], RoundContext(experiment.seed)
    learner = holders.resources.learner(experiment, examples, context, {})
    if learner.backbone.fresh:
        log.info("outputs  %s, in a head that is new", listed(experiment.data.labels))
    if experiment.adapter.source is not None:
        client_adapters.load_adapter(learner, experiment.adapter.source)
    return holders.equipped(learner, SERVER, experiment)


def _simulated_client(
    holders: Holders,
    server: AdaptedModel,
    name: str,
    experiment: Experiment,
    differ: Difference,
) -> SimulatedClient:
    """A client with the server's adapter, or with its own if its settings differ."""
    settings, learner = experiment.for_client(name), server
    if settings is not experiment:
        learner = holders.resources.learner(settings, {}, server.context, {})
        client_adapters.begin(server, learner, name, settings, differ)
    layout = client_adapters.declared(learner, differ)
    return SimulatedClient(settings, holders.equipped(learner, name, settings), layout)


def _labelled(experiment: Experiment, labels: dict[str, str]) -> Experiment:
    """The experiment with these labels, in this order."""
    if list(experiment.data.labels.items()) == list(labels.items()):
        return experiment
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})
