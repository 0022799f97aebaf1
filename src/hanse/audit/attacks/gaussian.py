"""Noise of a chosen size."""

from dataclasses import dataclass

import torch
from pydantic import PositiveFloat
from torch import Tensor

from hanse.audit.attack import Attack, Updates


@dataclass(frozen=True)
class Gaussian(Attack):
    """Each attacker sends normal noise whose norm is `factor` times that of its own update.

    The attackers draw by themselves, so that their noise points in different directions. A factor
    of 1 is noise that no bound on norms finds.
    """

    factor: PositiveFloat = 10.0

    def sent(self, updates: Updates) -> Tensor:
        own = updates.own
        noise = torch.randn(own.shape, generator=updates.draws, dtype=own.dtype)
        sizes: Tensor = own.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        return self.factor * sizes * noise
