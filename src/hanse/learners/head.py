"""What stands on top of a transformer, and what comes out of it: the role of heads."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor


class Head(ABC):
    """How a base model is loaded, and its outputs where there is a label.

    task: what PEFT calls it. auto: transformers' class that picks the model's own.
    causal: whether no token looks to the right, so that padding there needs no mask.
    """

    task: ClassVar[str]
    auto: ClassVar[type[Any]]
    causal: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, Any]:
        """What transformers is told beside the model's place."""
        return {}

    @abstractmethod
    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(N, classes) outputs.

        ids: (R, T) tokens, padded on the right; at: (N,) places in the flattened (R·T) positions;
        lengths: (R,) tokens of each row.
        """
