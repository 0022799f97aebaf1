"""Client-level differential privacy: clipped updates, and Gaussian noise on their mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from hanse.errors import UserError
from hanse.federation.accounting.calibration import advice, noise_for, rounds_within
from hanse.federation.accounting.epsilon import (
    LEAST_DELTA,
    GaussianReleases,
    epsilon,
    require_accountant,
)
from hanse.federation.accounting.terms import refuse_incomplete
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.messages import Update
from hanse.federation.noise import os_noise
from hanse.federation.noise.clipping import clipped, roundoff
from hanse.journal.privacy_record import PrivacyRecord
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, map_tensors, norm
from hanse.tensors.serialization import Numbers

BELOW = "below_clip"  # the number 1 of an update that is not clipped, and 0 of one that is
CLIP = "clip"  # in the state: the clip norm of the next round, (), float64
SETTING = "privacy.client_dp."
ASSUMPTIONS = (
    "The server is trusted: it sees each silo's update before there is noise.",
    "Two runs are compared, in one of which a silo adds nothing to the sum of updates, and half to "
    "the count of those that are not clipped; who takes part, and when it answers, is not hidden.",
    "The promise is for the trained model and its scores on the server's rows. What stays at the "
    "server (replies, times, counts of rows) is not protected.",
    "Only the releases of this run are counted; other runs on the same rows add to them.",
    "All rounds count in full: silos are drawn by a seed, which is not secret.",
    "Noise comes from the operating system, in floating-point numbers of 64 bits.",
)


@dataclass(frozen=True)
class ClientDp(Mechanism):
    """(Σ Δₖ·min(1, C/‖Δₖ‖) + N(0, (zC)²))/n: the model hardly depends on any one silo.

    DP-FedAvg with equal weights and the fixed denominator n, the clients that a round waits for
    (McMahan et al. 2018, 1710.06963). Each silo clips its update, and the server clips it again
    after decoding. All weights are 1, and updates keep no numbers.

    With `quantile` the clip norm follows that quantile γ of the updates' norms (Andrew et al. 2021,
    1905.03871): C ← C·exp(−η(b − γ)), where b is the share of updates that are not clipped, with
    noise of the standard deviation σᵦ. ε pays for both: the updates' noise multiplier is
    (z⁻² − (2σᵦ)⁻²)^(−1/2) instead of z (theorem 1), with σᵦ in clients. A silo that is compared
    with its absence (zero-out neighbours, as in Kairouz et al. 2021, 2103.00039) adds nothing to
    Σ (bₖ − ½) either, so its bₖ is ½ there.
    """

    noise: ClassVar[frozenset[str]] = frozenset({"finish"})
    relimits: ClassVar[bool] = True

    epsilon: PositiveFloat | None = 8.0  # ε of the whole run; None: as the noise makes it
    delta: Annotated[float, Field(ge=LEAST_DELTA, lt=1)] = 1e-5
    clip: PositiveFloat | None = 1.0  # C; of the first round, if there is a quantile
    noise_multiplier: NonNegativeFloat | None = None  # z; None: the least that epsilon needs
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None  # γ; None: C stays as it is
    clip_learning_rate: PositiveFloat = 0.2  # η
    count_noise: PositiveFloat = 0.05  # σᵦ ÷ n

    def __post_init__(self) -> None:
        refuse_incomplete(
            "client_dp",
            self.clip,
            self.epsilon,
            self.noise_multiplier,
            "on updates no noise hides one; set it to about the norm of a usual update",
        )
        for name in ("clip_learning_rate", "count_noise"):
            if self.quantile is None and getattr(self, name) != getattr(type(self), name):
                raise UserError(
                    f"{SETTING}{name} does nothing without {SETTING}quantile, by which the clip "
                    f"norm follows the updates; set quantile, such as 0.5, or leave {name} out."
                )

    @property
    def numbers(self) -> tuple[str, ...]:
        return (BELOW,) if self.quantile else ()

    # ---- the clip norm, at both ends

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        clip = self._clip(state)
        below = float(norm(update.tensors) <= clip)
        return self._limited(update, clip, below)

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        below = float(update.numbers.get(BELOW, 0.0) > 0)  # whatever a client sends
        return self._limited(update, self._clip(state), below)

    def _limited(self, update: Update, clip: float, below: float) -> Update:
        numbers = dict.fromkeys(self.numbers, below)
        return replace(update, tensors=clipped(update.tensors, clip), numbers=numbers, weight=1.0)

    def _clip(self, state: Tensors) -> float:
        """C; raises UserError for one that no honest server sends."""
        assert self.clip is not None
        if not self.quantile:
            return self.clip
        clip = state.get(CLIP, torch.empty(0))
        if clip.numel() != 1 or not 0 < float(clip) < math.inf:
            raise UserError("the server has sent no clip norm that is a positive number.")
        return float(clip)

    @property
    def largest_clip(self) -> float | None:
        return None if self.quantile else self.clip

    # ---- the noise, at the server

    def init(self, expected: Layout) -> Tensors:
        return {CLIP: torch.tensor(self.clip, dtype=torch.float64)} if self.quantile else {}

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        answered, clip = aggregate.weight, self._clip(state)  # each update has the weight 1
        # The mean has been rounded, which may differ with one silo more.
        bound = clip * (1 + 2 * answered * roundoff(aggregate.tensors))
        deviation = self._update_noise(context) * bound / context.clients

        def noised(tensor: torch.Tensor) -> torch.Tensor:
            mean = tensor.double() * (answered / context.clients)
            return (mean + deviation * os_noise.gaussian(tensor.shape, context)).to(tensor.dtype)

        numbers, after = dict(aggregate.numbers), state
        if self.quantile:
            below = answered * numbers.pop(BELOW, 0.0)
            after = {CLIP: state[CLIP] * self._growth(below - answered / 2, context)}
        tensors = map_tensors(noised, aggregate.tensors)
        return replace(aggregate, tensors=tensors, numbers=numbers), after

    def _growth(self, centred: float, context: RoundContext) -> float:
        """The factor of the clip norm. centred: Σ (bₖ − ½) over clients, each 1 or 0 minus ½."""
        assert self.quantile is not None
        draw = float(os_noise.gaussian(torch.Size([1]), context))
        share = centred / context.clients + 0.5 + self.count_noise * draw
        return math.exp(-self.clip_learning_rate * (share - self.quantile))

    def _noise(self, context: RoundContext) -> float:
        """z, for updates and counts together."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        assert self.epsilon is not None
        return noise_for(self.epsilon * (1 - 1e-6), self.delta, context.rounds)

    def _update_noise(self, context: RoundContext) -> float:
        """The noise multiplier of the updates' sum."""
        if not context.clients:
            raise ValueError("the noise of client_dp needs the number of clients of a round")
        z = self._noise(context)
        if not self.quantile or not z:
            return z
        return 1 / math.sqrt(z**-2 - (2 * self.count_noise * context.clients) ** -2)

    # ---- the account

    def released(self, state: Tensors, context: RoundContext) -> Numbers:
        z = self._noise(context)
        return {"noise_multiplier": z, "clip": self._clip(state), "clients": context.clients}

    def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord:
        multipliers = [numbers.get("noise_multiplier", 0.0) for numbers in releases]
        spent = epsilon(map(GaussianReleases, multipliers), self.delta)
        return PrivacyRecord(
            mechanism="client_dp",
            unit="silo",
            epsilon=spent if math.isfinite(spent) else None,
            delta=self.delta,
            releases=len(releases),
            budget=self.epsilon,
            noise_multiplier=multipliers[-1] if multipliers else 0.0,
            clip=releases[-1].get("clip", 0.0) if releases else 0.0,
            assumptions=ASSUMPTIONS,
        )

    def require(self, context: RoundContext) -> None:
        require_accountant()
        z, rounds = self._noise(context), context.rounds
        if self.epsilon is not None and self.noise_multiplier is not None:
            affordable = rounds_within(self.epsilon, self.delta, z, 1.0)
            if affordable < rounds:
                raise UserError(
                    f"{SETTING}noise_multiplier {z:g} does not keep an epsilon of {self.epsilon:g} "
                    f"in {rounds:,} rounds; {advice(affordable)}, or leave noise_multiplier out."
                )
        least = z / (2 * context.clients)
        if self.quantile and self.count_noise <= least:
            raise UserError(
                f"{SETTING}count_noise is {self.count_noise:g}, and with a noise multiplier of "
                f"{z:g} and {context.clients} silos a round it must be more than {least:.3g}; "
                "raise it, or leave quantile out."
            )

    def remarks(self, context: RoundContext, clients: int, size: int) -> Sequence[str]:
        ratio = self._update_noise(context) * math.sqrt(size) / context.clients
        remarks = []
        if self.delta >= 1 / clients:
            remarks.append(
                f"{SETTING}delta is {self.delta:g}, and one of {clients} silos could be given away "
                f"whole with such a probability; set it well below {1 / clients:.2g}."
            )
        if ratio > 1:
            remarks.append(
                f"the noise on the mean of {context.clients} silos' updates is about {ratio:.3g} "
                f"times as long as the mean can be (noise multiplier · √{size:,} numbers ÷ silos); "
                "let more silos take part, or train fewer numbers, such as a head or lora_xs."
            )
        return remarks
