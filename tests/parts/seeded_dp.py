"""Example-level privacy with draws by the seed: a repeated run is the same. It protects nothing."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.row_protection import Sampling
from hanse.federation.privacy.example_dp import ClippedRows, ExampleDp
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


@dataclass(frozen=True)
class SeededDp(ExampleDp):
    """DP-SGD with test noise."""

    def protect(self, learner: Learner, context: RoundContext) -> Numbers:
        release = self.training(learner.sampling(), context)
        generator = context.generator("rows and noise")
        learner.protect(SeededRows(1.0, release["noise_multiplier"], context, generator))
        return release


@dataclass(frozen=True)
class SeededRows(ClippedRows):
    """The draws of one generator."""

    generator: torch.Generator = field(repr=False)

    def draw(self, sampling: Sampling) -> list[int]:
        drawn = torch.rand(sampling.rows, generator=self.generator) < sampling.probability
        rows: list[int] = drawn.nonzero()[:, 0].tolist()
        return rows

    def noise(self, shape: torch.Size) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return self.noise_multiplier * self.clip * drawn
