"""Example-level differential privacy: each silo trains on clipped and noisy gradients of rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.accounting.calibration import (
    WITHIN,
    advice,
    noise_for,
    rounds_within,
)
from hanse.federation.accounting.epsilon import (
    LEAST_DELTA,
    GaussianReleases,
    epsilon,
    require_accountant,
)
from hanse.federation.accounting.terms import refuse_incomplete
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.federation.messages import Update
from hanse.federation.noise import os_noise
from hanse.journal.privacy_record import PrivacyRecord
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Numbers

SETTING = "privacy.example_dp."
SHORTER = 1e-7  # relative, for rounding: no clipped gradient is longer than the clip norm
ASSUMPTIONS = (
    "Each silo protects its rows by itself: the promise rests on the silo's machine, not on the "
    "server, which may see every update.",
    "Runs with a row and without it are compared. The number of a silo's rows is public: weights, "
    "steps and the share of rows in a step follow from it.",
    "A row is one example of the data; who has several rows there is protected less.",
    "In each step each row is drawn by itself, with noise of the operating system, and nobody "
    "else learns which rows were drawn.",
    "The promise is for the updates that leave a silo. How long a silo takes to answer, and rows "
    "on which the result is scored, are not protected.",
    "Every silo is taken to train in every round; its own record counts those in which it did.",
    "Only the releases of this run are counted; other runs on the same rows add to them.",
    "Noise comes from the operating system, in floating-point numbers of 64 bits.",
)


@dataclass(frozen=True)
class ExampleDp(Mechanism):
    """(Σᵢ gᵢ·min(1, C/‖gᵢ‖) + N(0, (zC)²))/(qn) in each step: no row decides what a silo sends.

    DP-SGD (Abadi et al. 2016, 1607.00133) in the training of each silo, with any optimizer. Each of
    the n rows is drawn with the probability q = batch ÷ n, and qn, the size of the batch, is the
    denominator whatever was drawn. gᵢ is the gradient of a row's loss, which is the mean over the
    row's labels. `train.max_grad_norm` has no effect; penalties of the algorithm are added after
    the noise, since they depend on no row.

    The noise is drawn at the silo, before anything leaves it. Updates keep only the numbers that
    follow from the settings.
    """

    noise: ClassVar[frozenset[str]] = frozenset({"encode"})
    linear: ClassVar[bool] = True
    lossless: ClassVar[bool] = True
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors")
    public: ClassVar[tuple[str, ...]] = ("steps", "sum_lr", "sum_clipped_lr", "sum_a")
    protects_rows: ClassVar[bool] = True

    # ε of each silo's rows in the whole run; None: as the noise makes it.
    epsilon: PositiveFloat | None = 8.0
    delta: Annotated[float, Field(ge=LEAST_DELTA, lt=1)] = 1e-5
    clip: PositiveFloat | None = 1.0  # C
    noise_multiplier: NonNegativeFloat | None = None  # z; None: the least that epsilon needs

    def __post_init__(self) -> None:
        refuse_incomplete(
            "example_dp",
            self.clip,
            self.epsilon,
            self.noise_multiplier,
            "on gradients no noise hides a row; set it to about the norm of a usual row's "
            "gradient, such as 1",
        )

    @property
    def largest_clip(self) -> float | None:
        return self.clip

    # ---- at the silo

    def protect(self, learner: Learner, context: RoundContext) -> Numbers:
        release = self.training(learner.sampling(), context)
        assert self.clip is not None
        learner.protect(ClippedRows(self.clip, release["noise_multiplier"], context))
        return release

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        kept = {name: value for name, value in update.numbers.items() if name in self.public}
        return replace(update, numbers=kept)

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return update

    # ---- the account

    def training(
        self, sampling: Sampling, context: RoundContext, cheapest: Sampling | None = None
    ) -> Numbers:
        assert self.clip is not None
        noise = self._noise(cheapest or sampling, context)
        if self.noise_multiplier is None and cheapest not in (None, sampling):
            noise /= WITHIN  # one that needs as much may have found a little less
        return {
            "noise_multiplier": noise,
            "clip": self.clip,
            "sampling": sampling.probability,
            "steps": sampling.steps,
        }

    def _noise(self, sampling: Sampling, context: RoundContext) -> float:
        """z: noise of a step's sum ÷ C."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        if not context.rounds:
            raise ValueError("the noise of example_dp needs the number of rounds")
        assert self.epsilon is not None
        budget, q = self.epsilon * (1 - 1e-6), sampling.probability
        return noise_for(budget, self.delta, context.rounds, q, sampling.steps)

    def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord:
        spent = epsilon(map(_steps, releases), self.delta)
        last = releases[-1] if releases else {}
        return PrivacyRecord(
            mechanism="example_dp",
            unit="row",
            epsilon=spent if math.isfinite(spent) else None,
            delta=self.delta,
            releases=len(releases),
            budget=self.epsilon,
            noise_multiplier=last.get("noise_multiplier", 0.0),
            clip=last.get("clip", 0.0),
            assumptions=ASSUMPTIONS,
        )

    def require(self, context: RoundContext) -> None:
        require_accountant()

    def require_rows(self, sampling: Sampling, silo: str, context: RoundContext) -> Sequence[str]:
        rows, rounds, steps = sampling.rows, context.rounds, sampling.steps
        release = self.training(sampling, context)
        if self.noise_multiplier is not None and self.account([release] * rounds, context).exceeds:
            assert self.epsilon is not None  # or nothing would be exceeded
            z, q = self.noise_multiplier, sampling.probability
            affordable = rounds_within(self.epsilon, self.delta, z, q, steps)
            raise UserError(
                f"{SETTING}noise_multiplier {z:g} does not keep an epsilon of {self.epsilon:g} for "
                f"the {rows:,} rows of {silo}, with {steps:,} steps in each of {rounds:,} rounds; "
                f"{advice(affordable)}, or leave noise_multiplier out."
            )
        if self.delta < 1 / rows:
            return ()
        return (
            f"{SETTING}delta is {self.delta:g}, and one of the {rows:,} rows of {silo} could be "
            f"given away whole with such a probability; set it well below {1 / rows:.2g}.",
        )


def _steps(release: Numbers) -> GaussianReleases:
    """The noisy steps of one training."""
    return GaussianReleases(
        release.get("noise_multiplier", 0.0),
        release.get("sampling", 1.0),
        int(release.get("steps", 1)),
    )


@dataclass(frozen=True)
class ClippedRows(RowProtection):
    """Rows by Poisson sampling, gradients cut to the norm `clip`, and Gaussian noise.

    noise_multiplier: the noise's standard deviation ÷ clip.
    context: of the silo's training; draws come from the operating system, not from its seed.
    """

    clip: float
    noise_multiplier: float
    context: RoundContext = field(repr=False)

    def draw(self, sampling: Sampling) -> list[int]:
        if sampling.probability == 1:
            return list(range(sampling.rows))
        drawn = os_noise.uniform(sampling.rows, self.context) < sampling.probability
        rows: list[int] = drawn.nonzero()[:, 0].tolist()
        return rows

    def shares(self, norms: Tensor) -> Tensor:
        limits = self.clip * (1 - SHORTER) / norms.double().clamp(min=1e-300)
        return limits.clamp(max=1.0).where(norms.isfinite(), 0.0)

    def dropout_seed(self) -> int:
        return int.from_bytes(os_noise.random_bytes(8, self.context), "big") >> 1  # 63 bits

    def noise(self, shape: torch.Size) -> Tensor:
        return self.noise_multiplier * self.clip * os_noise.gaussian(shape, self.context)
