"""Verification: the bits of a key that an adapter has, and what chance explains."""

from dataclasses import dataclass

import torch

from hanse.audit.ownership.chance import LARGEST_P, least_right, p_value
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import place_of
from hanse.tensors.named import Tensors


@dataclass(frozen=True)
class Detection:
    """The right answers of a model to a key's questions: bits of tensors, or trigger prompts.

    choices: the equally likely answers to each, of which the key has drawn one.
    """

    right: int
    items: int
    choices: int = 2

    @property
    def rate(self) -> float:
        """The share of right answers."""
        return self.right / self.items

    @property
    def p_value(self) -> float:
        """The probability of as many right answers, or more, by chance."""
        return p_value(self.right, self.items, self.choices)

    @property
    def proves(self) -> bool:
        """True if chance does not explain it."""
        return self.p_value <= LARGEST_P

    @property
    def needed(self) -> int | None:
        """The fewest right answers that would prove it; None if not even all of them would."""
        return least_right(self.items, self.choices)


def detected(key: OwnershipKey, tensors: Tensors) -> Detection:
    """The detection of a key in an adapter's tensors (white box).

    Raises UserError if the adapter has none of the tensors that the key marks.
    """
    measured, _ = place_of(key, tensors).measured(tensors)
    signs = torch.tensor(key.signs())
    return Detection(int((measured.sign() == signs).sum()), key.bits)
