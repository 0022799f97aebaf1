"""FedCoLLM (Fan et al. 2024, 2411.11707): clients' small model and the server's large one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.distillation.mutual import Predictions, distillation_loss, predictions
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.federation.interfaces.results import Aggregate, State
from hanse.tensors.named import Tensors

LARGE, PUBLIC = "large", "public"


@dataclass(frozen=True)
class ServerCoTuning(Objective):
    """Lₛ + L_b of a small model s and a large one b, each with the gradient of its own loss alone.

    Lₛ = CEₛ + λ·T²·KL(p_b ‖ pₛ) and L_b = CE_b + λ·T²·KL(pₛ ‖ p_b), means over items; the other
    model's p is a constant to the gradient. reverse: with the arguments of each KL exchanged.
    small_only: Lₛ alone, by a large model that stays as it is.
    """

    batchable: ClassVar[bool] = False
    models: ClassVar[tuple[str, ...]] = (LARGE,)

    strength: float = 1.0
    temperature: float = 1.0
    reverse: bool = False
    small_only: bool = False

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.small_only):
            large = predictions(learner.models[LARGE], batch)
        small = predictions(learner, batch)
        loss = self._loss(small, large)
        return loss if self.small_only else loss + self._loss(large, small)

    def _loss(self, own: Predictions, other: Predictions) -> Tensor:
        return own.loss + self.strength * distillation_loss(
            own, other, self.temperature, self.reverse
        )


@dataclass(frozen=True)
class LabelCrossEntropy(Objective):
    """The cross-entropy of a model's predictions of the labels."""

    batchable: ClassVar[bool] = False

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return predictions(learner, batch).loss


@dataclass(frozen=True)
class FedCoLLM(FedAvg):
    """FedAvg of a small model, which the server then trains with a large one on public rows.

    The small model is `model`, the large one `models.large`, which only the server has, with the
    same tokens or classes. On public rows both learn the right answers and each other's. Only the
    small model's tensors travel, and sums of them suffice. The order of the two models' steps and
    of the arguments of KL is a reconstruction: both are trained in the same steps, and p of the
    other model is KL's first argument.

    public_steps: of the server in each round; 0: FedAvg. strength: λ; with 0 both models learn the
    right answers alone, each by itself. temperature: T. reverse: the other order of KL's arguments.
    initial_steps: of the small model before the first round, and in `hanse check`, by the answers
        of the large one, which stays as it is.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    server_models: ClassVar[tuple[str, ...]] = (LARGE,)
    co_trained: ClassVar[tuple[str, ...]] = (LARGE,)
    replaces_loss: ClassVar[tuple[str, ...]] = (PUBLIC,)
    needs_public: ClassVar[tuple[str, ...]] = ("server",)

    strength: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 1.0
    reverse: bool = False
    public_steps: NonNegativeInt = 10
    initial_steps: NonNegativeInt = 0

    def init(self, server: Server) -> State:
        learner = server.learner
        state = {**super().init(server), LARGE: learner.models[LARGE].initial()}
        if not self.initial_steps:
            return state
        objective = ServerCoTuning(self.strength, self.temperature, self.reverse, small_only=True)
        learner.fit(objective=objective, split=PUBLIC, steps=self.initial_steps)
        return {**state, "model": learner.tensors()}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        after = super().step(state, combined, server)
        if not self.public_steps:
            return after
        small, large = server.learner, server.learner.models[LARGE]
        small.load(after["model"])
        large.load(state[LARGE])
        if self.strength:
            objective = ServerCoTuning(self.strength, self.temperature, self.reverse)
            small.fit(None, objective, PUBLIC, beside=(LARGE,), steps=self.public_steps)
        else:
            for model in (small, large):
                model.fit(None, LabelCrossEntropy(), PUBLIC, steps=self.public_steps)
        return {**after, "model": small.tensors(), LARGE: large.tensors()}

    def beside(self, state: State) -> Mapping[str, Tensors]:
        return {LARGE: state[LARGE]}
