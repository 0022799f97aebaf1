"""Eight bits for each number: the nearest of 255 equal steps, with one scale for each block."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.codecs.even_steps import EvenSteps
from hanse.federation.codecs.quantizer import Block, Rounding


@dataclass(frozen=True)
class Int8(EvenSteps):
    """Eight bits a number: whole numbers from -127 to 127, times absmax/127 of its block.

    The error is at most absmax/254, and at most absmax/127 with stochastic rounding, whose mean
    over draws is exact.
    """

    linear: ClassVar[bool] = False
    bits: ClassVar[int] = 8

    block: Block = 256
    rounding: Rounding = "nearest"
