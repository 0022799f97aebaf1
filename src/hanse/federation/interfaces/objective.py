"""The role of an objective: the loss that a learner minimizes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Parameter

from hanse.federation.interfaces.declarations import withdraw
from hanse.federation.interfaces.learner import Learner


class Objective(ABC):
    """The loss that a learner minimizes."""

    # `loss` calls `forward` or `scores` once, and nothing else that needs the model, so several
    # clients can train in one forward pass. Always false for a class that overrides `rollout` or
    # `with_targets`.
    batchable: ClassVar[bool] = True
    # Models beside the trained one that the loss uses at clients, by their names in `models`. A
    # loss that uses some is not batchable.
    models: ClassVar[tuple[str, ...]] = ()
    # These models get the batches of the trained one, so they must have its tokenizer.
    reads_same_tokens: ClassVar[bool] = False
    # `loss` is the cross-entropy of the right answers. Declare it again beside another `loss`.
    is_cross_entropy: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        withdraw(cls, "is_cross_entropy", False, "loss")
        kept = cls.rollout is Objective.rollout and cls.with_targets is Objective.with_targets
        cls.batchable = cls.batchable and kept

    @property
    def example_kind(self) -> str:
        """The kind of its examples, which a class may set as a variable.

        It is "tokens", "label_words" to choose from, "tags" of words, "answer_pairs" of which one
        is chosen, or "verdicts" on answers.
        """
        return "tokens"

    def require(self, learner: Learner) -> None:  # noqa: B027 (most have no requirements)
        """Raise UserError, before training, for a learner or models beside it that do not fit."""

    @abstractmethod
    def loss(self, learner: Learner, batch: Any) -> Tensor:
        """The mean loss over the batch's items, a scalar."""

    def parameters(self) -> Mapping[str, Parameter]:
        """Parameters of the loss itself, trained with the model; whoever made it keeps them."""
        return {}

    def rollout(self, learner: Learner, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        """The examples that take the place of a micro-batch's own, such as the model's answers.

        It is called before every step, without gradients and without dropout; equal seeds give
        equal examples. By default the examples stay.
        """
        return examples

    def with_targets(self, batch: Any, places: Sequence[int]) -> Any:
        """The batch that `loss` is given, which has `items`, `tokens` and `examples`.

        It overrides this to add what it knows of each of the split's examples, by their places in
        the split. By default the batch stays.
        """
        return batch

    @property
    def rolls_out(self) -> bool:
        """True if the objective overrides `rollout`."""
        return type(self).rollout is not Objective.rollout
