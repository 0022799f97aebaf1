"""Noise from the operating system, on the mean, on each update or on both: toys of privacy.

Nothing is promised: no budget is counted, and the clients' weights are taken to be equal.
"""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, norm, scale
from hanse.tensors.serialization import Numbers


@dataclass(frozen=True)
class NoisedMean(Mechanism):
    """Clip each update, and add Gaussian noise to the mean.

    noise_multiplier: standard deviation of the noise ÷ (clip / clients).
    test_noise: whether noise comes from the run's seed, so that a test can repeat a run.
    """

    noise: ClassVar[frozenset[str]] = frozenset({"finish"})
    withholds_scores: ClassVar[bool] = False
    clip: float = 1.0
    noise_multiplier: float = 1.0
    test_noise: bool = False

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors=self._clipped(update.tensors))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors=self._clipped(update.tensors))  # whatever a client sends

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        tensors = self._noised(aggregate.tensors, len(aggregate.clients), context)
        return replace(aggregate, tensors=tensors), state

    def released(self, state: Tensors, context: RoundContext) -> Numbers:
        return {"clip": self.clip, "noise_multiplier": self.noise_multiplier}

    def _clipped(self, tensors: Tensors) -> Tensors:
        return scale(tensors, min(1.0, self.clip / max(norm(tensors), 1e-12)))

    def _noised(self, tensors: Tensors, clients: int, context: RoundContext) -> Tensors:
        seed = context.derive("noise") if self.test_noise else random.SystemRandom().getrandbits(63)
        draw = torch.Generator().manual_seed(seed)
        deviation = self.noise_multiplier * self.clip / clients
        return {
            name: tensor + deviation * torch.randn(tensor.shape, generator=draw)
            for name, tensor in tensors.items()
        }


@dataclass(frozen=True)
class NoisedTwice(NoisedMean):
    """Clip each update and add noise to it at the client, and add noise to the mean."""

    linear: ClassVar[bool] = True  # nothing is to decode
    noise: ClassVar[frozenset[str]] = frozenset({"encode", "finish"})

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors=self._noised(self._clipped(update.tensors), 1, context))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return update


@dataclass(frozen=True)
class NoisedUpdates(NoisedTwice):
    """Clip each update and add noise to it at the client, and leave the mean as it is."""

    noise: ClassVar[frozenset[str]] = frozenset({"encode"})

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        return aggregate, state
