"""Where the parts meet: from an experiment to learners, clients, and a run."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.experiment.assembly import client_examples
from hanse.experiment.assembly.federated_dataset import FederatedDataset
from hanse.experiment.assembly.preconditions import refuse_unmet
from hanse.experiment.assembly.resources import Resources, adapter_folder, adapter_settings, outputs
from hanse.experiment.schema import Experiment, build_aggregator, build_algorithm, build_tasks
from hanse.federation.client import ClientEndpoint
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory, TrainResult
from hanse.federation.interfaces.task import Task
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.journal.run_folder import Journal
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.batched_clients.member import Member
from hanse.learners.batched_clients.train import train
from hanse.learners.injection import adapter_files
from hanse.learners.models.label_outputs import listed
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.randomness import RoundContext
from hanse.tensors.named import refuse_unlike

log = logging.getLogger(__name__)

RUNS = Path("runs")


@dataclass(frozen=True)
class SimulatedClient:
    """One simulated client: its settings, and what its learners are copies of."""

    experiment: Experiment
    learner: AdaptedModel

    @property
    def examples(self) -> Mapping[str, Sequence[Example]]:
        """Its examples by split."""
        return self.learner.splits

    def profile(self, name: str) -> ClientProfile:
        """What the server knows of it."""
        numbers = {"rank": float(self.learner.rank), "scaling": self.learner.scaling}
        return ClientProfile(name, len(self.examples["train"]), numbers)


@dataclass
class Simulation:
    """All that a simulated run is made of, before the journal is opened."""

    experiment: Experiment
    machine: Resources
    division: FederatedDataset
    learner: AdaptedModel
    silos: dict[str, SimulatedClient]

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
        """What the server knows of the clients, in client order."""
        return [silo.profile(name) for name, silo in self.silos.items()]

    def run(self, journal: Journal, transport: Transport) -> Run:
        """The run, with the clients that a transport reaches."""
        experiment = self.experiment
        settings, rounds = experiment.evaluation, experiment.deployment
        schedule = Schedule(
            rounds=experiment.rounds,
            seed=experiment.seed,
            fraction_train=experiment.fraction_train,
            validate_every=settings.validate_every,
            test=settings.test,
            evaluate_clients=settings.clients and experiment.data.client_test > 0,
            deadline=rounds.deadline if transport.remote else None,
            quorum=rounds.needed(len(experiment.participant_names)) if transport.remote else 1,
            over_selection=rounds.over_selection if transport.remote else 1.0,
            max_norm_ratio=rounds.max_norm_ratio if transport.remote else None,
        )
        return Run(
            schedule,
            self.method,
            transport,
            self._server_learner,
            self.tasks,
            journal,
        )

    def _server_learner(self, context: RoundContext, optimizer_state: Memory) -> AdaptedModel:
        return replace(self.learner, context=context, optimizer_state=optimizer_state)

    def site(
        self,
        memories: Path,
        name: str,
        checkpoint_seconds: float | None = None,
        together: Callable[[Member], TrainResult] | None = None,
    ) -> ClientEndpoint:
        """One client's own side, with its memory in a folder below `memories`.

        checkpoint_seconds: of training between two notes of how far it is; None: it notes nothing.
        together: trains it in a batch with others; None: it trains by itself.
        """
        silo = self.silos[name]
        if together is None and self.experiment.clients_per_pass != "off":  # noqa: S105
            together = _alone  # in a batch of its own, which computes as any other batch does
        model = replace(silo.learner, together=together)

        def learner(context: RoundContext, optimizer_state: Memory) -> Learner:
            noted = None
            if checkpoint_seconds is not None:
                noted = TrainingCheckpoint(memories / name / "training", checkpoint_seconds)
            client = replace(model, context=context, optimizer_state=optimizer_state)
            return replace(client, checkpoint=noted)

        return ClientEndpoint(
            profile=silo.profile(name),
            learner=learner,
            # Copies, so that nothing but bytes can pass between one half and another.
            method=self.method.copy(),
            tasks={name: copy(task) for name, task in self.tasks.items()},
            store=MemoryStore(memories / name),
            seed=self.experiment.seed,
        )


def build_method(experiment: Experiment) -> Method:
    """The method, with its parts' settings; raises UserError if they do not fit together."""
    return Method(build_algorithm(experiment), build_aggregator(experiment))


def _alone(member: Member) -> TrainResult:
    return train([member])[0]


def simulate(
    experiment: Experiment,
    machine: Resources | None = None,
    division: FederatedDataset | None = None,
    only: Collection[str] | None = None,
    begun: bool = False,
) -> Simulation:
    """Load what the experiment names and check that it fits together; nothing is written.

    machine: what is in memory already, when several runs follow each other.
    division: who has which rows, if not all of them are here.
    only: the clients that are made; the others are on other machines.
    begun: whether the run has said before which of a classifier's outputs is which label.
    """
    build_method(experiment)  # refuses parts that do not fit together
    (machine := machine or Resources()).clear_adapters()  # those that an earlier run has trained
    division = division or machine.division(experiment)
    experiment = _labelled(experiment, division.labels)
    every = {name: experiment.for_client(name) for name in experiment.participant_names}
    refuse_unmet(experiment, division, every, only is None)
    adapter_settings(experiment)  # refuses an adapter that cannot be read, before the model loads
    asked = next(iter(build_tasks(experiment).values())).example_kind
    own = {name: settings for name, settings in every.items() if only is None or name in only}
    shares = list(client_examples.shares(experiment, own, division, asked))
    client_examples.refuse_unfit(shares, division.labels)
    if not (begun or only):  # a silo is told by the server
        division = replace(division, labels=outputs(experiment, division.labels))
        experiment = _labelled(experiment, division.labels)
    read = client_examples.read(shares, partial(machine.reader, labels=division.labels))
    learner = machine.learner(
        experiment, read[client_examples.SERVER], RoundContext(experiment.seed), {}
    )
    room = learner.backbone.max_length(experiment.model.max_length)
    division = replace(division, remarks=(*division.remarks, *client_examples.cut(read, room)))
    if learner.backbone.fresh:
        log.info("outputs  %s, in a head that is new", listed(division.labels))
    if experiment.adapter.source is not None:
        _go_on_from(learner, experiment.adapter.source)
    silos = {name: _client(machine, learner, name, experiment, read[name]) for name in own}
    return Simulation(experiment, machine, division, learner, silos)


def _client(
    machine: Resources,
    server: AdaptedModel,
    name: str,
    experiment: Experiment,
    examples: Mapping[str, Sequence[Example]],
) -> SimulatedClient:
    """A client with the server's model or, if it has settings of its own, one that begins alike."""
    settings, learner = experiment.for_client(name), server
    if settings is not experiment:
        learner = machine.learner(settings, {}, server.context, {})
        _fit_to(server, name, learner, build_algorithm(experiment).clients_may_differ)
    return SimulatedClient(settings, replace(learner, splits=examples))


def _fit_to(server: AdaptedModel, name: str, mine: AdaptedModel, unequal: bool) -> None:
    """Have a client's own model begin as the server's, unless its rank may be another."""
    alike = mine.parameters().keys() == server.parameters().keys()
    if mine.rank == server.rank or not (unequal and alike):
        _refuse_unlike(name, mine, server)
        mine.backbone.set_initial(mine.adapter, server.initial())


def _labelled(experiment: Experiment, labels: dict[str, str]) -> Experiment:
    """The experiment with the labels that were found in its rows."""
    if list(experiment.data.labels.items()) == list(labels.items()):  # in this order
        return experiment
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})


def _go_on_from(learner: AdaptedModel, source: str) -> None:
    live = learner.parameters()
    whole = adapter_files.read(adapter_folder(source))[1]
    tensors = {n: t for n, t in whole.items() if n in live}
    if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in live.items()}:
        raise UserError(
            f"the adapter in {source} does not fit {learner.backbone.name}; "
            "go on with the base model that it was trained for."
        )
    learner.backbone.set_initial(learner.adapter, tensors)
    learner.backbone.read_constants(learner.adapter, whole)


def _refuse_unlike(name: str, silo: AdaptedModel, server: AdaptedModel) -> None:
    """A client that trains other tensors would be left out of every round; better to say so now."""
    try:
        refuse_unlike(server.parameters(), silo.parameters())
    except UserError as error:
        raise UserError(f"clients.{name}: {error}") from None
