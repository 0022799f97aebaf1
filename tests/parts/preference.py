"""A preference objective: the model prefers chosen answers more than its base does.

A toy of what preferences ask of the roles: pairs of answers, the logits of the base as a reference,
and answers that the model draws in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from hanse.data.example import Example
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.objective import Objective
from hanse.learners.training.batches import answer_scores


@dataclass(frozen=True)
class Preference(Objective):
    """The mean over pairs of −log σ(β·(m − m₀)), m = log p(chosen | prompt) − log p(rejected | …).

    m₀ is the same of the base without the adapter (DPO, Rafailov et al. 2023, 2305.18290).
    drawn: the most tokens of an answer that the model draws in training, which then takes the place
        of the rejected one (SPIN, Chen et al. 2024, 2401.01335); 0: the data's answer stays.
    """

    example_kind = "answer_pairs"
    batchable = False  # the reference needs a second forward pass

    beta: float = 0.1
    drawn: int = 0

    def rollout(
        self, learner: Learner, examples: Sequence[Example], seed: int
    ) -> Sequence[Example]:
        if not self.drawn:
            return examples
        answers = learner.continuations(examples, self.drawn, temperature=1.0, seed=seed)
        return [
            replace(
                example,
                ids=example.ids[: example.rejected] + answer.ids,
                labels=example.labels[: example.rejected] + answer.labels,
                sampled=True,
            )
            for example, answer in zip(examples, answers, strict=True)
        ]

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        margin = _margin(learner.scores(batch))
        reference = _margin(answer_scores(learner.base_logits(batch), batch))
        return -logsigmoid(self.beta * (margin - reference)).mean()


def _margin(scores: Tensor) -> Tensor:
    """(B,): log p(chosen) − log p(rejected), from (B, 2) scores."""
    return scores[:, 0] - scores[:, 1]
