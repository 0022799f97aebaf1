"""Tagging: the cross-entropy of every word's tag, such as a part of speech or a kind of entity."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective


@dataclass(frozen=True)
class Tag(Objective):
    """The mean over words of −log p(tag | the whole text), with p at a word's first token."""

    example_kind = "tags"
    is_cross_entropy = True

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return cross_entropy(learner.forward(batch), batch.targets)
