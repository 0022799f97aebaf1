"""Supervised fine-tuning: the cross-entropy of every labelled token."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective


@dataclass(frozen=True)
class Sft(Objective):
    """The mean over labelled tokens of −log p(token | the tokens before it)."""

    example_kind = "tokens"
    is_cross_entropy = True

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return cross_entropy(learner.forward(batch), batch.targets)
