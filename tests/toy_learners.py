"""Learners in miniature that train in milliseconds, and the rows that they learn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Memory, Penalty, TrainResult
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.loop import fit
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B, Factors, layers
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
