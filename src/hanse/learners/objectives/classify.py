"""Classification by label words: the cross-entropy over the words that may be the answer."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective


@dataclass(frozen=True)
class Classify(Objective):
    """The mean over examples of −log p(right word), p normalized over the label words alone."""

    example_kind = "label_words"
    is_cross_entropy = True

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return cross_entropy(learner.scores(batch), batch.choice)
