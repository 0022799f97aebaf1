"""The outputs of a learner's model for a batch: logits, hidden states and attention."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class ModelOutputs(ABC):
    """The outputs of a model at the labelled places of a batch, in float32."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Logits at the labelled places: (labels, classes)."""

    def base_logits(self, batch: Any) -> Tensor:
        """The logits of the same model without its adapter, and without gradients."""
        raise TypeError(f"{type(self).__name__} gives no logits without its adapter")

    def hidden_states(self, batch: Any, base: bool = False) -> Tensor:
        """(layers + 1, labels, width): the input of the first layer, and each layer's output.

        base: those of the model without its adapter, and without gradients.
        """
        raise TypeError(f"{type(self).__name__} gives no hidden states")

    def attentions(self, batch: Any, base: bool = False) -> Tensor:
        """(layers, labels, heads, tokens): the weight of each token of the row at each label.

        The weights of virtual tokens are left out; those of padding are 0. base: as above. Raises
        UserError for a model that has no such weights.
        """
        raise TypeError(f"{type(self).__name__} gives no attention weights")

    def scores(self, batch: Any) -> Tensor:
        """(examples, answers) scores: of label words, of chosen and rejected answer, or of one."""
        return self.forward(batch)
