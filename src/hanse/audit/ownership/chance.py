"""Chance and capacity: the probability that a stranger's key fits, and how many bits a place holds.

FedIPR (Li et al. 2022, 2109.13236): section 4.1 for the claim, Theorem 1 for the capacity.
"""

from fractions import Fraction
from math import comb

LARGEST_P = 1e-9  # above it a key proves nothing: a forger may try many seeds before one fits


def p_value(right: int, items: int, choices: int = 2) -> float:
    """The probability that at least `right` of `items` drawn answers are right by chance.

    Σ C(n, i) qⁱ(1 − q)ⁿ⁻ⁱ over i ≥ right, with q = 1/choices, in whole numbers and so exact before
    the last division. choices: answers to each item, of which the key has drawn one with equal
    chances. Whatever the model is, the bits of a key that was not used are right by this chance.
    """
    if not 0 <= right <= items or choices < 2:
        raise ValueError(f"{right} of {items} answers out of {choices} choices")
    ways = sum(comb(items, i) * (choices - 1) ** (items - i) for i in range(right, items + 1))
    return float(Fraction(ways, choices**items))


def least_right(items: int, choices: int = 2, largest: float = LARGEST_P) -> int | None:
    """The fewest right answers that prove something; None if not even all of them do."""
    return next((n for n in range(items + 1) if p_value(n, items, choices) <= largest), None)


def detection_bound(bits: int, channels: int) -> float:
    """The share of right bits that can always be reached: 1 up to the capacity, less above it.

    1 if KN ≤ M, else (KN + M) / (2KN), for KN bits of all K owners in M channels (Theorem 1).
    """
    return 1.0 if bits <= channels else (bits + channels) / (2 * bits)
