"""Distributed discrete Gaussian noise: each client adds a share, which adds up in secure sums."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.accounting.calibration import advice
from hanse.federation.accounting.concentrated import noise_for, rounds_within, spent
from hanse.federation.accounting.terms import refuse_incomplete
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory, SumTerms
from hanse.federation.messages import Update
from hanse.federation.noise.discrete_gaussian import discrete_gaussian
from hanse.federation.noise.rotation import padded_size, rotate, rotate_back
from hanse.federation.noise.whole_steps import Steps, choose, rounded
from hanse.journal.privacy_record import PrivacyRecord
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, largest, map_tensors
from hanse.tensors.serialization import MessageError, Numbers

SETTING = "privacy.distributed_gaussian."
PADDING = "rotation.padding"  # the numbers that the rotation adds to those of the update


@dataclass(frozen=True)
class DistributedGaussian(Mechanism):
    """(Σ round(H·Δₖ·min(1, C/‖Δₖ‖)/γ) + N_Z(0, σ²)ₖ)·γ/n, rotated back, from a secure sum alone.

    Distributed discrete Gaussian mechanism (Kairouz, Liu, Steinke 2021, 2102.06387). Each silo
    clips its update, rotates it by a randomized Hadamard matrix H, rounds it to whole steps γ, and
    adds discrete Gaussian noise, whose draws are exact. The rule adds these whole numbers as they
    are. The denominator n is the number of clients that a round waits for. All weights are 1, and
    updates keep no numbers.

    The noise of the least permitted number of survivors, minus the colluders, has the noise
    multiplier z. So ε holds whichever silos drop out, and more survivors only add noise.
    """

    linear: ClassVar[bool] = True
    whole_numbers: ClassVar[bool] = True
    noise: ClassVar[frozenset[str]] = frozenset({"share"})
    _rule: ClassVar[Aggregator | None] = None  # of a copy, which `beside` makes

    epsilon: PositiveFloat | None = 8.0  # ε of the whole run; None: as the noise makes it
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clip: PositiveFloat | None = 1.0  # C
    noise_multiplier: NonNegativeFloat | None = None  # z; None: the least that epsilon needs

    def __post_init__(self) -> None:
        refuse_incomplete(
            "distributed_gaussian",
            self.clip,
            self.epsilon,
            self.noise_multiplier,
            "on updates no noise hides one; set it to about the norm of a usual update",
        )

    @property
    def largest_clip(self) -> float | None:
        return self.clip

    # ---- the sums of the rule, which decide the grid and each client's share

    def beside(self, rule: Aggregator) -> Self:
        own = copy(self)
        object.__setattr__(own, "_rule", rule)
        return own

    def least_updates(self, context: RoundContext) -> int:
        return self._terms(context).survivors

    def _terms(self, context: RoundContext) -> SumTerms:
        """The terms of a round's sum; raises UserError beside a rule that has none."""
        if not context.clients or self._rule is None:
            raise ValueError("distributed_gaussian needs a rule, and the clients of a round")
        if (terms := self._rule.sum_terms(context.clients)) is None:
            raise UserError(
                f"{type(self._rule).__name__} adds no whole numbers, which distributed_gaussian "
                "sends; choose the aggregator secagg."
            )
        return terms

    def _shares(self, context: RoundContext) -> int:
        """The fewest honest clients whose noise is in a sum."""
        terms = self._terms(context)
        return terms.survivors - terms.colluders

    def _steps(self, size: int, context: RoundContext) -> Steps:
        """The grid for updates of so many numbers; raises UserError if it would be too coarse."""
        terms, z = self._terms(context), self._noise(context)
        try:
            return choose(size, context.clients, self._shares(context), z, terms.most)
        except ValueError:
            raise UserError(
                f"sums of {context.clients} clients leave {SETTING}clip too few whole steps for "
                f"{size:,} numbers and noise of {z:g} times the clip norm; raise "
                f"{self._rule.rounds_by if self._rule else 'the bits'}, or train fewer numbers."
            ) from None

    def _noise(self, context: RoundContext) -> float:
        """z, of a whole sum: standard deviation of the noise ÷ largest effect of one client."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        assert self.epsilon is not None
        return noise_for(self.epsilon, self.delta, context.rounds)

    # ---- the client

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        vector = _flat(update.tensors)
        if not bool(vector.isfinite().all()):
            raise UserError("this client's update has numbers that are not finite.")
        steps = self._steps(len(vector), context)
        whole = self._whole(vector, steps, context)
        noisy = whole + self._share(len(whole), steps, context)
        return replace(update, tensors=_split(noisy, update.tensors), numbers={}, weight=1.0)

    def _whole(self, vector: Tensor, steps: Steps, context: RoundContext) -> Tensor:
        """The clipped, rotated update (padded size,) in whole steps, of norm √steps.square."""
        assert self.clip is not None
        scaled = vector * (steps.clip / max(self.clip, float(vector.norm())))
        rotated = rotate(scaled, context)
        return rounded(rotated, steps.square, context.generator("rounding"))

    def _share(self, size: int, steps: Steps, context: RoundContext) -> Tensor:
        """The client's share of the noise, in steps."""
        return discrete_gaussian(size, steps.deviation, context)

    # ---- the server

    def init(self, expected: Layout) -> Tensors:
        _refuse_whole(expected)
        return {}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        forms = {name: largest(form) for name, form in expected.items()}
        size = sum(form.numel() for form in forms.values())
        padding = padded_size(size) - size
        shapes = {name: form.shape for name, form in forms.items()}
        shapes |= {PADDING: torch.Size([padding])} if padding else {}
        return {
            name: torch.empty(shape, dtype=torch.int64, device="meta")
            for name, shape in shapes.items()
        }

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The mean of updates from that of whole numbers; `context` names no client."""
        assert self.clip is not None
        forms = {name: t for name, t in update.tensors.items() if name != PADDING}
        size, padding = sum(t.numel() for t in forms.values()), update.tensors.get(PADDING)
        if padded_size(size) - size != (0 if padding is None else padding.numel()):
            raise MessageError(f"{size:,} rotated numbers came with other padding than is due")
        rotated = _flat(forms if padding is None else {**forms, PADDING: padding})
        step = self.clip / self._steps(size, context).clip
        vector = rotate_back(rotated, size, context) * step
        return replace(update, tensors=_split(vector, forms))

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        share = aggregate.weight / context.clients  # each update has the weight 1

        def of_all(tensor: Tensor) -> Tensor:
            return (tensor.double() * share).to(tensor.dtype)

        return replace(aggregate, tensors=map_tensors(of_all, aggregate.tensors)), state

    # ---- the account

    def released(self, state: Tensors, context: RoundContext) -> Numbers:
        """Noise is at least as large: it is rounded up to whole steps."""
        assert self.clip is not None
        shares = float(self._shares(context))
        return {"noise_multiplier": self._noise(context), "clip": self.clip, "shares": shares}

    def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord:
        multipliers = [numbers.get("noise_multiplier", 0.0) for numbers in releases]
        total = spent(multipliers, self.delta)
        return PrivacyRecord(
            mechanism="distributed_gaussian",
            unit="silo",
            epsilon=total if math.isfinite(total) else None,
            delta=self.delta,
            releases=len(releases),
            budget=self.epsilon,
            noise_multiplier=multipliers[-1] if multipliers else 0.0,
            clip=releases[-1].get("clip", 0.0) if releases else 0.0,
            assumptions=self._assumptions(context),
        )

    def _assumptions(self, context: RoundContext) -> tuple[str, ...]:
        terms = self._terms(context)
        return (
            f"The server sees sums of at least {terms.survivors} silos' updates, and it colludes "
            f"with {terms.colluders} of them at most: the noise of {self._shares(context)} is "
            "counted, and that of others only adds to it.",
            "Each silo draws its share of the noise on its own word; nobody can see that it did.",
            "Runs with a silo's update and with zeros in its place are compared; who takes part is "
            "not hidden.",
            "Secure sums hide single updates from whoever cannot break their ciphers.",
            "Only the releases of this run are counted; other runs on the same rows add to them.",
            "All rounds count in full: silos are drawn by a seed, which is not secret.",
        )

    def require(self, context: RoundContext) -> None:
        z, rounds = self._noise(context), context.rounds
        self._terms(context)
        if self.epsilon is not None and self.noise_multiplier is not None:
            affordable = rounds_within(self.epsilon, self.delta, z)
            if affordable < rounds:
                raise UserError(
                    f"{SETTING}noise_multiplier {z:g} does not keep an epsilon of {self.epsilon:g} "
                    f"in {rounds:,} rounds; {advice(affordable)}, or leave noise_multiplier out."
                )

    def remarks(self, context: RoundContext, clients: int, size: int) -> Sequence[str]:
        steps, shares = self._steps(size, context), self._shares(context)
        deviation = steps.deviation / steps.clip / math.sqrt(context.clients)  # of the mean
        ratio, remarks = deviation * math.sqrt(size), []
        if self.delta >= 1 / clients:
            remarks.append(
                f"{SETTING}delta is {self.delta:g}, and one of {clients} silos could be given away "
                f"whole with such a probability; set it well below {1 / clients:.2g}."
            )
        if ratio > 1:
            remarks.append(
                f"the noise on the mean of {context.clients} silos' updates is about {ratio:.3g} "
                f"times as long as the mean can be, since that of any {shares} silos must be "
                f"enough for {size:,} numbers; let more silos take part, or train fewer numbers, "
                "such as a head or lora_xs."
            )
        return remarks


def _flat(tensors: Tensors) -> Tensor:
    """All numbers (size,) in float64, by name; the padding comes last."""
    names = sorted(tensors, key=lambda name: (name == PADDING, name))
    return torch.cat([torch.zeros(0).double(), *(tensors[n].reshape(-1).double() for n in names)])


def _split(vector: Tensor, forms: Tensors) -> dict[str, Tensor]:
    """The inverse of `_flat` for tensors of these shapes; what is left is the padding."""
    tensors, place = {}, 0
    for name in sorted(forms):
        size = forms[name].numel()
        tensors[name] = vector[place : place + size].reshape(forms[name].shape)
        place += size
    return {**tensors, PADDING: vector[place:]} if place < len(vector) else tensors


def _refuse_whole(expected: Layout) -> None:
    """Raise UserError for an update with integers, which nothing here could clip."""
    for name, form in expected.items():
        if not largest(form).is_floating_point():
            raise UserError(
                f"updates have whole numbers in {name}, which distributed_gaussian cannot clip; "
                "choose another algorithm, or privacy: none."
            )
