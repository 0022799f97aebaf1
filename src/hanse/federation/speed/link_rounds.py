"""Rounds that time clients' links: messages that are large both ways, large on the way down, empty.

The seconds of the three differ by those of the large parts alone, so that the rates of both ways
and the seconds of an empty message follow from the times at which the server has sent and received.
"""

from enum import Enum

import torch

from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors

SAMPLE = "sample"  # (numbers,) or (1,): of a message of such a round; the numbers mean nothing


class LinkRound(Enum):
    """A round's messages: whether they are large. down: the request. up: the reply."""

    BOTH = True, True
    DOWN = True, False
    NEITHER = False, False

    @property
    def down(self) -> bool:
        return self.value[0]

    @property
    def up(self) -> bool:
        return self.value[1]


def link_round(number: int) -> LinkRound | None:
    """The messages of a probe's round; None for the first, which trains. The three take turns."""
    kinds = list(LinkRound)
    return kinds[(number - 2) % len(kinds)] if number > 1 else None


def sample(large: bool, numbers: int, context: RoundContext) -> Tensors:
    """A tensor for a message; one that is large has so many numbers, which do not compress.

    Its norm is 1 in all messages, or a server that bounds norms (`deployment.max_norm_ratio`) would
    refuse the longest.
    """
    drawn = torch.rand(numbers if large else 1, generator=context.generator(SAMPLE))
    return {SAMPLE: drawn / drawn.norm()}
