"""Random numbers addressed by key and place: Philox 4x32-10 (Salmon et al. 2011), in torch.

A place gives the same integers on every machine and device, whatever was drawn before, so that
nothing that was drawn has to be stored. Normals follow from them by Box and Muller's transform.
"""

import math

import torch
from torch import Tensor

ROUNDS = 10
LANES = 4  # words of 32 bits from each counter
WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of words 0 and 2
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round
Key = tuple[int, int]  # two words


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Key) -> tuple[Tensor, ...]:
    """The four random words of each counter.

    counter: four words of 32 bits, each an int64 tensor (n,) of its own with values below 2³²; they
        are overwritten. The result has the same form.
    """
    # A product of two words wraps around in int64, and its bits are still those of the product.
    # Words 1 and 3 may carry bits above the 32nd: they enter an exclusive or alone, which is cut.
    word0, word1, word2, word3 = counter
    high = torch.empty_like(word0)
    for round in range(ROUNDS):
        keys = [(word + round * step) & WORD for word, step in zip(key, KEY_STEPS, strict=True)]
        word0.mul_(MULTIPLIERS[0])
        word2.mul_(MULTIPLIERS[1])
        torch.bitwise_right_shift(word2, 32, out=high)
        word1.bitwise_xor_(high).bitwise_xor_(keys[0]).bitwise_and_(WORD)
        torch.bitwise_right_shift(word0, 32, out=high)
        word3.bitwise_xor_(high).bitwise_xor_(keys[1]).bitwise_and_(WORD)
        word0, word1, word2, word3 = word1, word2, word3, word0
    return tuple(word.bitwise_and_(WORD) for word in (word0, word1, word2, word3))


def normals(key: Key, start: int, number: int, device: torch.device) -> Tensor:
    """(number,) standard normals in float64: the elements `start`, … of the key's sequence.

    Element i comes from lane i mod 4 of the counter ⌊i/4⌋. Machines agree to 1e-6, since their
    logarithms and cosines may round otherwise.
    """
    first, last = start // LANES, -(-(start + number) // LANES)
    place = torch.arange(first, last, device=device)
    high = place >> 32
    words = philox(
        (place.bitwise_and_(WORD), high, torch.zeros_like(place), torch.zeros_like(place)), key
    )
    drawn = torch.empty(len(place), LANES, dtype=torch.float64, device=device)
    for lane in (0, 2):
        radius = _uniform(words[lane]).log_().mul_(-2).sqrt_()
        angle = _uniform(words[lane + 1]).mul_(2 * math.pi)
        torch.mul(radius, angle.cos(), out=drawn[:, lane])
        torch.mul(radius, angle.sin_(), out=drawn[:, lane + 1])
    offset = start - first * LANES
    return drawn.flatten()[offset : offset + number]


def _uniform(word: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), in float64, from words of 32 bits."""
    return word.double().add_(0.5).mul_(2.0**-32)
