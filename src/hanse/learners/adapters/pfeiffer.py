"""Pfeiffer's adapters (Pfeiffer et al. 2021, 2005.00247): one bottleneck in each layer."""

from dataclasses import dataclass
from typing import Any

from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.targets import plain, sublayers
from hanse.learners.tuners.bottleneck import BottleneckConfig


@dataclass(frozen=True)
class Pfeiffer(Houlsby):
    """h + W₂·f(W₁h + b₁) + b₂ behind the feed-forward part of each layer: half of Houlsby's.

    A reconstruction: where a layer ends with a norm, the paper has the bottleneck behind that.
    """

    non_linearity: str = "relu"

    def config(self, model: Any) -> BottleneckConfig:
        found = super().config(model)
        found.target_modules = plain(self.target_modules) or sublayers(model, attention=False)
        return found
