"""The roles: what each part of a federation does, and what it may know.

Every part has a client half and a server half in one class, and only bytes pass between them. The
defaults here keep the simple case simple: FedAvg overrides two methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hanse.federation.interfaces.declarations import EVERYTHING, withdraw
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, layout


@dataclass
class Client:
    """What client halves may use. `memory` lasts between rounds; `session` never touches disk."""

    profile: ClientProfile
    learner: Learner
    memory: Memory
    session: dict[str, Any]
    context: RoundContext


@dataclass
class Server:
    """What server halves may use."""

    learner: Learner
    num_clients: int
    context: RoundContext


class Algorithm(ABC):
    """What is learned together: a frozen dataclass whose fields are its settings.

    Server half: init, instruction, update_layout, step, model, shared, and combine where a method
    needs each update.
    Client half: train, personal.
    """

    # What `step` needs beside tensors that stand for the round's; a class with another `step` or
    # `combine` says it anew, or is taken to need everything.
    needs: ClassVar[frozenset[str]] = EVERYTHING
    numbers: ClassVar[tuple[str, ...]] = ()  # those that every client must report
    payload: ClassVar[str] = "change"  # what an update holds: change, factors, logits or scalars
    clients_may_differ: ClassVar[bool] = False  # clients' LoRA ranks may differ from the server's
    # What clients may train by: AdamW, SGD with momentum, SGD without.
    optimizers: ClassVar[tuple[str, ...]] = ("adamw", "momentum", "sgd")
    # Clients' optimizers begin anew in every round: the next round's tensors are no continuation of
    # the last one's, or what is frozen beside them has changed.
    resets_optimizer: ClassVar[bool] = True
    # Clients are never sent some tensors that all share, and take them as their own settings draw
    # them: silos elsewhere could not go on from an adapter that only the server has.
    redraws: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "needs", EVERYTHING, "step", "combine")

    def init(self, server: Server) -> State:
        """The state before the first round."""
        return {"model": server.learner.tensors()}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction | None:
        """What this client is sent in the round at `context`; None leaves it out."""
        return Instruction(state["model"])

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        """The names, shapes and dtypes of this client's update before any transform."""
        return layout(state["model"])

    def max_weight(self, profile: ClientProfile) -> float:
        """The largest weight that this client's update may have; a larger one is refused.

        By default the examples that the client has declared; an algorithm whose clients weigh alike
        says so here, or one of them could take over the mean.
        """
        return max(1.0, profile.examples)

    def measured(self, tensors: Tensors) -> Mapping[str, Tensors]:
        """The parts of an update whose norms are each compared with the other clients', by name."""
        return {"norm": tensors}

    @abstractmethod
    def train(self, instruction: Instruction, client: Client) -> Update:
        """At the client: what it makes of an instruction."""

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        """At the client: the tensors that it evaluates and keeps for itself."""
        return instruction.tensors

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        """Combine the updates itself; overridden only where a mean will not do."""
        raise TypeError(f"{type(self).__name__} leaves combining to the aggregator")

    @property
    def combines(self) -> bool:
        """Whether it overrides `combine`, and so needs every update as it was sent."""
        return type(self).combine is not Algorithm.combine

    @abstractmethod
    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        """The state after a round; `state` itself is left as it was."""

    def model(self, state: State) -> Tensors:
        """What the server's learner evaluates and saves."""
        return state["model"]

    def shared(self, state: State) -> Tensors:
        """What of `model` the clients train together; the rest stays with each of them."""
        return self.model(state)

    @property
    def personalizes(self) -> bool:
        """Whether it overrides `shared`: clients keep some tensors to themselves."""
        return type(self).shared is not Algorithm.shared
