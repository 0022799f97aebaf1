"""Pfeiffer's adapters (Pfeiffer et al. 2021, 2005.00247): one bottleneck in each layer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from hanse.learners.adapters.houlsby import Houlsby
from hanse.registry import NAMES


@dataclass(frozen=True)
class Pfeiffer(Houlsby):
    """h + W₂·f(W₁h + b₁) + b₂ after the feed-forward part of each layer: half of Houlsby's.

    A reconstruction: in layers that end with a norm, the paper puts the bottleneck after the norm.
    """

    attention: ClassVar[bool] = False

    non_linearity: Annotated[str, NAMES] = "relu"
