"""The parts of a federated run as the server holds them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hanse.federation.accounting.sampling_bounds import SamplingBounds, exactly
from hanse.federation.delivery.files import RunFiles
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory, Scores
from hanse.federation.interfaces.row_protection import Sampling
from hanse.federation.interfaces.task import Task
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.releases import ReleaseLog
from hanse.federation.schedule import Schedule
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import Journal
from hanse.randomness import RoundContext


def no_sampling(profile: ClientProfile) -> SamplingBounds:
    """The sampling of clients whose rows nothing hides: each is read in full."""
    return exactly(Sampling(profile.examples, 1.0, 1))


@dataclass
class Run:
    """The parts of a run, put together; `server.rounds` executes it.

    learner: makes the server's learner for a round, from the context and the optimizer's state of
        an algorithm that trains on the server.
    collects: whether the journal keeps each client's decoded update.
    files: those that clients are sent before they train; `rounds` makes or reads them.
    holders: the clients that have them, as far as this process knows.
    sampling: the draw of rows in a client's trainings, if a mechanism hides them.
    scored: by split and model, the digest of the last scored tensors, and their scores by task.
    """

    schedule: Schedule
    method: Method
    transport: Transport
    learner: Callable[[RoundContext, Memory], Learner]
    tasks: Mapping[str, Task]
    journal: Journal
    collects: bool = False
    sampling: Callable[[ClientProfile], SamplingBounds] = field(default=no_sampling)
    files: RunFiles = field(default_factory=RunFiles)
    holders: set[str] = field(default_factory=set)
    scored: dict[tuple[str, str], tuple[str, dict[str, Scores]]] = field(default_factory=dict)

    @cached_property
    def releases(self) -> ReleaseLog:
        """The server's releases of results with noise."""
        return ReleaseLog(self.journal.folder)

    @property
    def evaluates_clients(self) -> bool:
        """True if clients score the result on their own rows, and the method lets scores leave."""
        return self.schedule.evaluate_clients and not self.method.withholds_scores

    def profiles(self) -> dict[str, ClientProfile]:
        """The clients' profiles by name, in client order."""
        return {profile.name: profile for profile in self.transport.profiles()}

    def context(self, round: int) -> RoundContext:
        """The context of one round at the server."""
        schedule = self.schedule
        return RoundContext(
            schedule.seed, round, rounds=schedule.rounds, clients=schedule.clients_per_round
        )

    def server(self, round: int, clients: int, optimizers: dict[str, Memory]) -> Server:
        """The server of one round, as the algorithm's server half sees it.

        optimizers: the optimizer's state of the trained model, as "", and of each named one.
        """
        context = self.context(round)
        learner = self.learner(context, optimizers.setdefault("", {}))
        for name, model in learner.models.items():
            model.load(model.initial())  # as in a process that resumes
            model.keep_optimizer_state(optimizers.setdefault(name, {}))
        return Server(learner, clients, context, self.files.paths)

    def may_repeat(self, records: Sequence[ClientRecord]) -> bool:
        """True if clients on other machines answered a phase of a round before all refused.

        They may refuse since another one has left in an earlier phase, so it is asked again.
        records: the ledger's of the round. Without phases each has refused to train.
        """
        answered = any(record.answered_at is not None and not record.error for record in records)
        refused = any(record.error for record in records)
        return self.transport.remote and self.method.aggregator.has_phases and answered and refused
