"""A federation in miniature: learners that train in milliseconds, and a network that misbehaves."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.evaluation.perplexity import Perplexity
from hanse.federation.accounting.sampling_bounds import exactly
from hanse.federation.aggregators.mean import Mean
from hanse.federation.client import ClientEndpoint
from hanse.federation.client_memory import MemoryStore
from hanse.federation.client_sampling import taking_part
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty, TrainResult
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.interfaces.transform import Transform
from hanse.federation.interfaces.transport import Transport
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.federation.messages import ClientProfile, Reply, Request
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.federation.server import rounds as loop
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import latest
from hanse.journal.records import RoundRecord
from hanse.journal.run_folder import Journal, read_rounds
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.loop import fit
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.security.identity import simulated
from hanse.simulation.in_process import InProcess
from hanse.tensors.low_rank import A, B, Factors, layers
from hanse.tensors.named import layout
from hanse.tensors.serialization import MessageError
from row_loop import RowLoop

CLASSES, FEATURES = 3, 4
LAYER = "layer"  # what a toy's LoRA adapter is put around
QUICK = TrainingSettings(learning_rate=0.1, per_device_train_batch_size=4, optim="sgd")
Make = Callable[[RoundContext, Memory], Learner]


@dataclass(frozen=True)
class Point:
    """One example: a place in the plane of features, and its class."""

    x: tuple[float, ...]
    y: int

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class Batch:
    """x: (B, features); targets: (B,) classes; rows: (B,) the example of each target."""

    x: Tensor
    targets: Tensor

    @property
    def rows(self) -> Tensor:
        return torch.arange(len(self.targets))

    @property
    def examples(self) -> int:
        return len(self.targets)

    items = tokens = examples
    choices = 0


@cache
def points(
    seed: int, number: int, classes: tuple[int, ...] = (0, 1, 2), features: int = FEATURES
) -> tuple[Point, ...]:
    """`number` noisy points around the centres of these classes; the centres are always the same.

    features: how many numbers a point has.
    """
    centres = 1.5 * torch.randn(CLASSES, features, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed + 1)
    labels = [classes[index % len(classes)] for index in range(number)]
    noise = torch.randn(number, features, generator=draw)
    return tuple(
        Point(tuple((centres[y] + noise[row]).tolist()), y) for row, y in enumerate(labels)
    )


@dataclass(frozen=True)
class Toy:
    """Settings of a toy learner; called with a moment and the optimizer's memory, it makes one.

    hidden: width of a hidden layer; 0 for softmax regression.
    rank: of a LoRA adapter on the regression's frozen weights, which is then all that is trained;
        0 for none. scale: what its product is multiplied by. beside: the name of a bias
        that is trained beside it, if there is one.
    whole: whether all weights change in place, and there is no adapter.
    models: the hidden widths of the models beside it, by name.
    """

    splits: Mapping[str, Sequence[Point]]
    training: TrainingSettings = QUICK
    hidden: int = 0
    rank: int = 0
    scale: float = 1.0
    beside: str = ""
    objective: Objective = field(default_factory=Sft)
    rounds: int = 3
    whole: bool = False
    models: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> "ToyLearner":
        kind = InPlaceToy if self.whole else ToyLearner
        return kind(self, context, optimizer_state)


class ToyLearner(Learner):
    """Softmax regression, or a network with one hidden layer; it starts the same everywhere."""

    def __init__(self, toy: Toy, context: RoundContext, optimizer_state: Memory) -> None:
        self.toy, self.context, self.optimizer_state = toy, context, optimizer_state
        features = len(next(iter(next(filter(None, toy.splits.values())))).x)
        alone = {name: replace(toy, hidden=width, models={}) for name, width in toy.models.items()}
        self.models = {name: own(context, {}) for name, own in alone.items()}
        self._live = {name: Parameter(t) for name, t in _initial(features, toy).items()}
        self._features, self._frozen = features, frozenset[str]()
        self._residual: Factors | None = None
        self._protection: RowProtection | None = None
        self._sealed = False

    def sampling(self) -> Sampling:
        return self.toy.training.sampling(len(self.examples("train")))

    def protect(self, protection: RowProtection) -> None:
        self._protection, self._sealed = protection, True

    def parameters(self) -> Mapping[str, Parameter]:
        return {name: p for name, p in self._live.items() if name not in self._frozen}

    @property
    def scaling(self) -> float:
        return self.toy.scale

    def initial(self) -> Mapping[str, Tensor]:
        return _initial(self._features, self.toy)

    def keep_optimizer_state(self, state: Memory) -> None:
        self.optimizer_state = state

    def set_residual(self, residual: Mapping[str, Tensor]) -> None:
        self._residual = layers(residual).get(LAYER)

    def freeze(self, tensors: Mapping[str, Tensor]) -> None:
        self._frozen = frozenset(tensors)
        for name, tensor in tensors.items():
            self._live[name].data.copy_(tensor)
            self._live[name].requires_grad_(False)

    def examples(self, split: str) -> Sequence[Point]:
        assert not (self._sealed and split == "train")
        return self.toy.splits.get(split, ())

    def batch(self, examples: Sequence[Point]) -> Batch:
        targets = torch.tensor([point.y for point in examples])
        return Batch(torch.tensor([point.x for point in examples]), targets)

    def forward(self, batch: Batch) -> Tensor:
        x = batch.x
        if self.toy.rank:
            y = self.toy.scale * x @ self._live[LAYER + A].T @ self._live[LAYER + B].T
            if self.toy.beside:
                y = y + self._live[self.toy.beside]
            return y if self._residual is None else y + x @ self._residual.product().T
        if self.toy.hidden:
            x = self.hidden_states(batch)[-1]
        return x @ self._live["weight"].T + self._live["bias"]

    def hidden_states(self, batch: Batch, base: bool = False) -> Tensor:
        """Zeros for the input, and then those of the hidden layer, or the points."""
        states = batch.x
        if self.toy.hidden:
            states = torch.tanh(states @ self._live["inner"].T + self._live["inner bias"])
        return torch.stack([torch.zeros_like(states), states])

    def fit(
        self,
        penalty: Penalty | None = None,
        objective: Objective | None = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainResult:
        toy, protection = self.toy, self._protection
        job = self.job(penalty, objective, split, beside, steps)
        if protection is None:
            return fit(job)
        self._protection, self._sealed = None, False
        try:
            unclipped = replace(job, settings=replace(toy.training, max_grad_norm=0.0))
            return fit(unclipped, None, RowLoop(unclipped, protection))
        finally:
            self._sealed = True

    def job(
        self,
        penalty: Penalty | None = None,
        objective: Objective | None = None,
        split: str = "train",
        beside: Sequence[str] = (),
        steps: int | None = None,
    ) -> TrainingJob:
        """The training that `fit` does."""
        toy = self.toy
        return TrainingJob(
            self,
            split,
            toy.training if steps is None else replace(toy.training, max_steps=steps),
            objective or toy.objective,
            self.context,
            toy.rounds,
            penalty,
            self.optimizer_state,
            {name: self.models[name].job() for name in beside},
        )

    def tokenization(self, split: str) -> dict[str, Tensor]:
        return {"labels": torch.tensor([point.y for point in self.examples(split)])}

    def correspondences(
        self, split: str, other: Mapping[str, Tensor]
    ) -> tuple[Correspondence, Correspondence]:
        """All toys have the same classes and rows."""
        labels = other["labels"]
        same = Correspondence(torch.arange(len(labels)), torch.arange(CLASSES), labels, CLASSES)
        return same, same

    def save(self, folder: Path) -> None:
        raise NotImplementedError


class InPlaceToy(ToyLearner, WholeModel):
    """A toy without an adapter: all weights change in place."""

    def parameters(self) -> Mapping[str, Parameter]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.replay(tensors)

    @property
    def whole_model(self) -> WholeModel:
        return self

    @property
    def learning_rate(self) -> float:
        return self.toy.training.learning_rate

    @property
    def steps(self) -> int:
        return self.toy.training.steps(len(self.examples("train")))

    def weights(self) -> Mapping[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self._live.items()}

    def restore(self) -> None:
        for name, tensor in self.initial().items():
            self._live[name].data.copy_(tensor)

    def round_batches(self) -> Iterator[Sequence[Batch]]:
        job = self.job()
        return (job.batches(n, step) for n, step in enumerate(job.sample_batches()))

    @torch.inference_mode()
    def loss(self, batches: Sequence[Batch]) -> float:
        items = sum(batch.items for batch in batches)
        losses = (self.toy.objective.loss(self, b) * (b.items / items) for b in batches)
        return float(sum(losses))


def _initial(features: int, toy: Toy) -> dict[str, Tensor]:
    hidden, rank = toy.hidden, toy.rank
    if rank:
        a = torch.randn(rank, features, generator=torch.Generator().manual_seed(rank))
        head = {toy.beside: torch.zeros(CLASSES)} if toy.beside else {}
        return {LAYER + A: a, LAYER + B: torch.zeros(CLASSES, rank), **head}
    if not hidden:
        return {"weight": torch.zeros(CLASSES, features), "bias": torch.zeros(CLASSES)}
    draw = torch.Generator().manual_seed(hidden)
    return {
        "inner": torch.randn(hidden, features, generator=draw) / features**0.5,
        "inner bias": torch.zeros(hidden),
        "weight": torch.randn(CLASSES, hidden, generator=draw) / hidden**0.5,
        "bias": torch.zeros(CLASSES),
    }


def silos(
    number: int = 4,
    training: TrainingSettings = QUICK,
    features: int = FEATURES,
    run: int = 3,
    rank: int = 0,
    beside: str = "",
    whole: bool = False,
    models: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Toy]:
    """Clients c0, c1, … with 8, 12, 16, … points; each is short of one class."""
    result = {}
    for index in range(number):
        own = tuple(y for y in range(CLASSES) if y != index % CLASSES)
        splits = {
            "train": points(index, 8 + 4 * index, own, features),
            "test": points(100 + index, 6, own, features),
            "public": points(1000, 30, features=features),
        }
        form: dict[str, Any] = {"rank": rank, "beside": beside, "whole": whole, "models": models}
        result[f"c{index}"] = Toy(splits, training, rounds=run, **form)
    return result


def held_out(training: TrainingSettings = QUICK, features: int = FEATURES, **settings: Any) -> Toy:
    """What makes the server's learner: points of all classes, disjoint from the clients' own."""
    splits = {
        "train": points(1000, 30, features=features),
        "public": points(1000, 30, features=features),
        "validation": points(2000, 60, features=features),
        "test": points(3000, 60, features=features),
    }
    return Toy(splits, training, **settings)


class Meddler(Transport):
    """A federation whose network loses, changes, reorders and repeats messages, and keeps a copy.

    lost: whether a request to (client, kind, round) never arrives.
    changed: what the server receives in place of a reply.
    rearranged: what arrives in place of the replies that are under way.
    """

    def __init__(
        self,
        inner: Transport,
        lost: Callable[[str, str, int], bool] = lambda client, kind, round: False,
        changed: Callable[[Reply], Reply] | None = None,
        rearranged: Callable[[list[bytes]], Iterable[bytes]] = list,
    ) -> None:
        self.inner, self.lost, self.changed, self.rearranged = inner, lost, changed, rearranged
        self.requests: list[bytes] = []
        self.replies: list[bytes] = []
        self._waiting: list[bytes] = []

    def profiles(self) -> list[ClientProfile]:
        return self.inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        self.requests.append(message)
        request = Request.parse(message)
        if not self.lost(client, request.kind, request.round):
            self.inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if not self._waiting:
            under_way = []
            while (arrived := self.inner.receive(timeout)) is not None:
                under_way.append(arrived[1])
                self.replies.append(arrived[1])
            self._waiting = list(self.rearranged(under_way))
        if not self._waiting:
            return None
        message = self._waiting.pop(0)
        try:
            reply = Reply.parse(message)
        except MessageError:  # somebody's noise
            return "", message
        return reply.client, message if self.changed is None else self.changed(reply).pack()


class Outcome(NamedTuple):
    """What a federation came to: its records, what the server knows, and the run."""

    records: list[RoundRecord]
    server_state: ServerState
    run: Run


def told(make: Make) -> dict[str, float]:
    """What the server knows of a client's adapter."""
    rank = getattr(make, "rank", 0)
    return {"rank": float(rank)} if rank else {}


def federate(
    algorithm: Algorithm,
    learners: Mapping[str, Make],
    folder: Path,
    server: Make | None = None,
    *,
    rounds: int = 3,
    upload: Sequence[Transform] = (),
    download: Sequence[Transform] = (),
    mechanisms: Sequence[Mechanism] = (),
    error_feedback: bool = False,
    own: Mapping[str, Pipelines] | None = None,
    aggregator: Aggregator | None = None,
    seed: int = 0,
    fraction_train: float = 1.0,
    numbers: Mapping[str, Mapping[str, float]] | None = None,
    network: Callable[[Transport], Transport] = lambda inner: inner,
    stop_after: int | None = None,
    quorum: int = 1,
    over_selection: float = 1.0,
    deadline: float | None = None,
    max_norm_ratio: float | None = None,
    collects: bool = False,
    endpoints: Callable[[ClientEndpoint], ClientEndpoint] = lambda own: own,
) -> Outcome:
    """Run a federation in `folder`, or go on with the one that is there.

    numbers: what the server knows of each client beside its number of examples.
    error_feedback: in both directions. own: the pipelines of clients with codecs of their own.
    stop_after: abandon the run as soon as this round is recorded.
    endpoints: what is made of each client's endpoint.
    """
    unequal = algorithm.clients_may_differ in ("layout", "model")
    profiles = {
        name: ClientProfile(
            name,
            len(make(RoundContext(0), {}).examples("train")),
            (numbers or {}).get(name, told(make)),
            layout(make(RoundContext(0), {}).parameters()) if unequal else None,
        )
        for name, make in learners.items()
    }
    tasks = {"loss": Perplexity()}
    up = Pipeline("upload", tuple(upload), tuple(mechanisms), error_feedback)
    down = Pipeline("download", tuple(download), (), error_feedback and bool(download))
    pipelines = Pipelines(up, down)
    method = Method(algorithm, aggregator or Mean(), pipelines, own or {})

    def endpoint(name: str) -> ClientEndpoint:
        store = MemoryStore(folder / "clients" / name)
        profile, learner = profiles[name], learners[name]
        parts = method.for_client(name)
        identity = simulated(seed, name, learners)
        own = ClientEndpoint(profile, learner, parts, tasks, store, seed, identity=identity)
        own = replace(own, rounds=rounds, participants=tuple(learners))
        own.clients = taking_part(len(profiles), fraction_train)
        return endpoints(own)

    transport = network(InProcess(list(profiles.values()), endpoint))
    journal = Journal(folder) if folder.exists() else Journal.create(folder, "")
    try:
        run = Run(
            Schedule(
                rounds,
                seed,
                fraction_train,
                quorum=quorum,
                over_selection=over_selection,
                deadline=deadline,
                max_norm_ratio=max_norm_ratio,
                participants=tuple(profiles),
            ),
            method,
            transport,
            server or held_out(),
            tasks,
            journal,
            collects,
            sampling=lambda own: exactly(learners[own.name](RoundContext(0), {}).sampling()),
        )
        with patch("os.fsync"):  # a test's files need not outlive a power cut
            for record in loop(run):
                if record.round == stop_after:
                    break
    finally:
        journal.close()
    checkpoint = latest(folder)
    assert checkpoint is not None  # round 0 is always recorded
    return Outcome(read_rounds(folder), ServerState.restored(checkpoint), run)


def same(a: ServerState, b: ServerState) -> bool:
    """Whether two servers know the same, to the last bit."""
    left, right = ({**s.algorithm_state, **s.transform_states} for s in (a, b))
    left, right = ({k: v for k, v in groups.items() if v} for groups in (left, right))
    return (
        dict(a.last_counted_rounds) == dict(b.last_counted_rounds)
        and left.keys() == right.keys()
        and all(left[group].keys() == right[group].keys() for group in left)
        and all(
            torch.equal(t, right[group][name]) for group in left for name, t in left[group].items()
        )
    )


def with_tensors(reply: Reply, tensors: Mapping[str, Tensor]) -> Reply:
    """The same reply with other tensors."""
    return replace(reply, update=replace(reply.update, tensors=dict(tensors)))
