"""The half of a learner that compares its tokens with those of another model's tokenizer."""

from dataclasses import dataclass

from torch import Tensor

from hanse.tensors.named import Tensors


@dataclass(frozen=True)
class Correspondence:
    """The rows and classes of one model, the source, that are those of another one, the target.

    rows: (M,) the source's row of logits for each label of the target, or -1.
    mapping: (V,) the target's class for each of the source's, or -1.
    labels: (M,) the target's classes at its labels. classes: their number.
    """

    rows: Tensor
    mapping: Tensor
    labels: Tensor
    classes: int


class TokenAlignment:
    """Tokens of a learner's examples; learners that read no text refuse its calls."""

    def tokenization(self, split: str) -> dict[str, Tensor]:
        """The vocabulary, and the tokens and labels of a split, for another machine's learner."""
        raise TypeError(f"{type(self).__name__} reads no text")

    def correspondences(self, split: str, other: Tensors) -> tuple[Correspondence, Correspondence]:
        """From this learner to another one, and back; other: the `tokenization` of that one.

        Raises UserError if the other one has other texts, or if tokens cannot be compared.
        """
        raise TypeError(f"{type(self).__name__} reads no text")
