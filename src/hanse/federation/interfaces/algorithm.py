"""The role of an algorithm; only bytes pass between its halves, whose records are in `halves`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hanse.federation.interfaces.declarations import EVERYTHING, Difference, withdraw
from hanse.federation.interfaces.halves import Client, Server
from hanse.federation.interfaces.model_requirements import ModelRequirements
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, layout

__all__ = ["Algorithm", "Client", "Server"]


class Algorithm(ModelRequirements, ABC):
    """A federated learning algorithm: a frozen dataclass whose fields are its settings.

    The client half is `train` and `personalized`; all other methods are the server half.
    """

    # Beyond tensors that represent the round. Declare it again beside another `step` or `combine`.
    needs: ClassVar[frozenset[str]] = EVERYTHING
    numbers: ClassVar[tuple[str, ...]] = ()  # names of the numbers that every client must report
    payload: ClassVar[str] = "change"  # content of an update: change, factors, logits or scalars
    instruction_payload: ClassVar[str] = "model"  # content of an instruction, for the download
    clients_may_differ: ClassVar[Difference] = "none"  # a client's settings from the server's
    for_sums: ClassVar[str] = ""  # the algorithm to name to users of a rule that sees sums only
    optimizers: ClassVar[tuple[str, ...]] = ("adamw", "momentum", "sgd")  # momentum: SGD with it
    resets_optimizer: ClassVar[bool] = True  # in each round, as tensors do not continue the last
    keeps_optimizer: ClassVar[bool] = False  # clients' optimizers must keep their state
    redraws: ClassVar[bool] = False  # clients draw shared tensors; the server's adapter lacks them
    fits_once: ClassVar[bool] = False  # `train` reads a client's rows by one `fit` alone
    server_settings: ClassVar[tuple[str, ...]] = ()  # names of those that clients are not sent
    whole_model: ClassVar[bool] = False  # all weights change in place, and there is no adapter

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "needs", EVERYTHING, "step", "combine")
        withdraw(cls, "fits_once", False, "train")

    def prepare(self, server: Server, folder: Path) -> Mapping[str, Path]:
        """Write the files that every client is sent once, by name; learners stay as they are."""
        return {}

    def init(self, server: Server) -> State:
        """The state before the first round."""
        return {"model": server.learner.tensors()}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction | None:
        """The instruction to one client in the round of `context`; None leaves the client out."""
        return Instruction(state["model"])

    def typical(self, state: State) -> State:
        """A state as in later rounds, by which `hanse check` counts bytes: `state` before any."""
        return state

    @property
    def unlike_instructions(self) -> str:
        """The settings by which clients of a round may get different instructions; or empty."""
        return "" if self.clients_may_differ == "none" else "the adapters of clients"

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        """The layout of this client's update before any transform; bounds are for `combine`."""
        return layout(state["model"])

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        """Raise MessageError for contents of an update of the right layout that cannot be."""

    def max_weight(self, profile: ClientProfile) -> float:
        """The largest weight that is accepted of this client; equal weights must override it."""
        return max(1.0, profile.examples)

    def measured(self, tensors: Tensors) -> Mapping[str, Tensors]:
        """The parts of an update, by name; each one's norm is compared with the other clients'."""
        return {"norm": tensors}

    @abstractmethod
    def train(self, instruction: Instruction, client: Client) -> Update:
        """At the client: train as instructed, and return the update."""

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        """At the client: the tensors that the client evaluates, and would keep for itself."""
        return instruction.tensors

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        """Combine the updates; override it only if a mean is not enough."""
        raise TypeError(f"{type(self).__name__} leaves combining to the aggregator")

    @property
    def combines(self) -> bool:
        """True if the algorithm overrides `combine`, and therefore needs every single update."""
        return type(self).combine is not Algorithm.combine

    @abstractmethod
    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        """The state after a round; `state` itself is not changed."""

    def model(self, state: State) -> Tensors:
        """The tensors that the server evaluates and saves."""
        return state["model"]

    def shared(self, state: State) -> Tensors:
        """The tensors of `model` that clients train together; each keeps the others to itself."""
        return self.model(state)

    def beside(self, state: State) -> Mapping[str, Tensors]:
        """The tensors of `server_models` that the server scores and saves, too, by their names."""
        return {}

    @property
    def personalizes(self) -> bool:
        """True if the algorithm overrides `shared`: clients keep some tensors to themselves."""
        return type(self).shared is not Algorithm.shared
