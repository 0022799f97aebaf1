"""The roles: what each part of a federation does, and what it may know.

Every part has a client half and a server half in one class, and only bytes pass between them. The
defaults here keep the simple case simple: FedAvg overrides two methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from hanse.errors import UserError
from hanse.learner import Learner
from hanse.messages import ClientProfile, Order, Update
from hanse.randomness import Moment
from hanse.tensors import (
    Layout,
    Tensors,
    layout,
)
from hanse.values import Combined, Memory, Scores, State

# What an algorithm's step may need of the aggregate, and what an aggregator may give.
MEAN = "mean"  # the tensors are the mean of all updates, by the weights that clients give
NUMBERS = "numbers"  # so are the numbers that clients report
UPDATES = "updates"  # the algorithm's `combine` is given each update
EVERYTHING = frozenset({MEAN, NUMBERS, UPDATES})


def _withdraw(part: type, declaration: str, closed: Any, *methods: str) -> None:
    """Fail closed: what a base class declares of a method does not hold for one in its place."""
    if declaration not in vars(part) and any(method in vars(part) for method in methods):
        setattr(part, declaration, closed)


@dataclass
class Client:
    """What client halves may use. `memory` lasts between rounds; `session` never touches disk."""

    profile: ClientProfile
    learner: Learner
    memory: Memory
    session: dict[str, Any]
    moment: Moment


@dataclass
class Server:
    """What server halves may use."""

    learner: Learner
    num_clients: int
    moment: Moment


class Algorithm(ABC):
    """What is learned together: a frozen dataclass whose fields are its settings.

    Server half: init, order, expects, step, model, shared, and combine where a method needs each
    update.
    Client half: train, personal.
    """

    # What `step` needs beside tensors that stand for the round's; a class with another `step` or
    # `combine` says it anew, or is taken to need everything.
    needs: ClassVar[frozenset[str]] = EVERYTHING
    numbers: ClassVar[tuple[str, ...]] = ()  # those that every client must report
    payload: ClassVar[str] = "change"  # what an update holds: change, factors, logits or scalars
    unequal: ClassVar[bool] = False  # clients' LoRA ranks may differ from the server's
    # What clients may train by: AdamW, SGD with momentum, SGD without.
    optimizers: ClassVar[tuple[str, ...]] = ("adamw", "momentum", "sgd")
    # Clients' optimizers begin anew in every round: the next round's tensors are no continuation of
    # the last one's, or what is frozen beside them has changed.
    forgetful: ClassVar[bool] = True
    # Clients are never sent some tensors that all share, and take them as their own settings draw
    # them: silos elsewhere could not go on from an adapter that only the server has.
    redraws: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _withdraw(cls, "needs", EVERYTHING, "step", "combine")

    def init(self, server: Server) -> State:
        """The state before the first round."""
        return {"model": server.learner.tensors()}

    def order(self, state: State, profile: ClientProfile, moment: Moment) -> Order | None:
        """What this client is sent in the round at `moment`; None leaves it out."""
        return Order(state["model"])

    def expects(self, state: State, profile: ClientProfile, moment: Moment) -> Layout:
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
    def train(self, order: Order, client: Client) -> Update:
        """At the client: what it makes of an order."""

    def personal(self, order: Order, client: Client) -> Tensors:
        """At the client: the tensors that it evaluates and keeps for itself."""
        return order.tensors

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Combined:
        """Combine the updates itself; overridden only where a mean will not do."""
        raise TypeError(f"{type(self).__name__} leaves combining to the aggregator")

    @property
    def combines(self) -> bool:
        """Whether it overrides `combine`, and so needs every update as it was sent."""
        return type(self).combine is not Algorithm.combine

    @abstractmethod
    def step(self, state: State, combined: Combined, server: Server) -> State:
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


class Transform(ABC):
    """What an update passes on its way: a codec, or a mechanism of privacy.

    The server may hold state (a basis, a clip norm), and `broadcast` says what of it travels with
    every request. The sender may keep memory (the error of a lossy codec).
    """

    linear: ClassVar[bool] = False  # encode commutes with sums
    payloads: ClassVar[tuple[str, ...]] = ("change",)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _withdraw(cls, "linear", False, "encode", "decode")

    def init(self, expected: Layout) -> Tensors:
        """The server's state before the first round."""
        return {}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """What `encode` makes of tensors of this layout."""
        return expected

    def broadcast(self, state: Tensors) -> Tensors:
        """What clients are told of the server's state; by default all of it."""
        return state

    @abstractmethod
    def encode(self, tensors: Tensors, memory: Memory, state: Tensors, moment: Moment) -> Tensors:
        """At the sender."""

    @abstractmethod
    def decode(self, tensors: Tensors, state: Tensors, moment: Moment) -> Tensors:
        """At the receiver."""

    def finish(self, combined: Combined, state: Tensors) -> tuple[Combined, Tensors]:
        """On the server, after the updates were combined: the result, and the next state."""
        return combined, state


class Federation(ABC):
    """The clients, wherever they run; messages pass as bytes.

    ahead: how many requests it holds before there must be a reply; None for any number.
    remote: whether messages travel, so that waiting for a reply takes time of its own.
    """

    ahead: int | None = None
    remote: ClassVar[bool] = True

    @abstractmethod
    def profiles(self) -> list[ClientProfile]:
        """The clients there are, in client order."""

    @abstractmethod
    def send(self, client: str, message: bytes) -> None:
        """Hand over a request; returns at once."""

    @abstractmethod
    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        """Who replied next, and the reply; None if none came in `timeout` seconds, or can come."""

    def gather(self, clients: Sequence[str], enough: int) -> bool:
        """Wait until enough of these clients can be asked again, of which too few have answered.

        False where nothing would change by waiting.
        """
        return False


class Exchange(Protocol):
    """One round's conversation with its clients, as an aggregator sees it."""

    @property
    def profiles(self) -> Mapping[str, ClientProfile]:
        """The clients of the round, in client order."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, for one that combines by itself."""

    def ask(
        self, kind: str, orders: Mapping[str, Order], expected: Mapping[str, Layout]
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """A phase of the aggregator's own: answers in client order, past the schema gate."""

    def train(
        self, notes: Mapping[str, Order] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The round's training: encoded and sealed updates in client order, past the gate.

        notes: what the aggregator tells each client along; a client without a note is left out.
        """

    def decode(self, client: str, tensors: Tensors) -> Tensors:
        """Undo the transforms of `client`'s tensors ("": those of a sum over clients)."""


class Aggregator(ABC):
    """How a round's updates become one."""

    # It never sees a single update, so transforms must be linear, and no algorithm gets updates.
    sums_only: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = frozenset()  # beside tensors that stand for the round's

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _withdraw(cls, "gives", frozenset(), "aggregate")

    @abstractmethod
    def aggregate(self, exchange: Exchange) -> Combined:
        """On the server: ask, and combine what comes back."""

    def layout(self, expected: Layout) -> Layout:
        """What `seal` makes of tensors of this layout."""
        return expected

    def seal(self, update: Update, note: Order, client: Client) -> Update:
        """At the client: the last thing that happens to an update."""
        return update

    def handle(self, kind: str, order: Order, client: Client) -> Update:
        """At the client: answer a phase of the aggregator's own."""
        raise UserError(f"this client knows no request of the kind {kind!r}.")


class Task(ABC):
    """How a learner is judged on a split."""

    needs: ClassVar[str] = "tokens"  # how rows become examples, as for objectives
    # Measured on the server's test rows only, not on validation rows nor at the clients.
    costly: bool = False
    limit: int | None = None  # most examples of one evaluation, a split's first; None for all

    def require(self) -> None:  # noqa: B027 (most need nothing)
        """Raise UserError if a package that it needs is not installed."""

    @abstractmethod
    def evaluate(self, learner: Learner, split: str) -> Scores:
        """Metrics, and one value per item in the order of the split."""
