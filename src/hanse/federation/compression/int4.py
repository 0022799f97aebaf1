"""Four bits for each number: the nearest of 15 equal steps, with one scale for each block."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.codecs.even_steps import EvenSteps
from hanse.federation.codecs.quantizer import Block, Rounding


@dataclass(frozen=True)
class Int4(EvenSteps):
    """Four bits a number: whole numbers from -7 to 7, times absmax/7 of its block.

    The error is at most absmax/14, and at most absmax/7 with stochastic rounding, whose mean over
    draws is exact.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 4

    block: Block = 64
    rounding: Rounding = "nearest"
