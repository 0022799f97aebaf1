"""The record of the differential privacy of a run, which is written before it is spent."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from hanse.journal.records import Metrics, RoundNumber

PRIVACY = "privacy.json"  # a PrivacyRecord
CHARGES = "row-charges.jsonl"  # one RowCharges a line


@dataclass(frozen=True, kw_only=True)
class PrivacyRecord:
    """privacy.json: (ε, δ) of all releases of a run so far, or of those that are planned.

    unit: what the result hides the presence of: a silo, or a row.
    epsilon: of all releases together; None: not bounded. budget: its upper limit; None: none.
    noise_multiplier: of the last release, noise ÷ largest effect of one unit. clip: its clip norm.
    assumptions: what the figures rest on, one sentence each.
    """

    mechanism: str
    unit: str
    epsilon: NonNegativeFloat | None
    delta: Annotated[float, Field(gt=0, lt=1)]
    releases: NonNegativeInt
    budget: PositiveFloat | None = None
    noise_multiplier: NonNegativeFloat = 0.0
    clip: NonNegativeFloat = 0.0
    assumptions: tuple[str, ...] = ()

    @property
    def exceeds(self) -> bool:
        """True if the releases cost more than the budget."""
        return self.budget is not None and (self.epsilon is None or self.epsilon > self.budget)

    def sentence(self) -> str:
        """The promise in words, such as "ε = 7.98 at δ = 1e-05 for a silo, in 6 releases"."""
        epsilon = "unbounded" if self.epsilon is None else f"{_rounded_up(self.epsilon)}"
        return f"ε = {epsilon} at δ = {self.delta:g} for a {self.unit}, in {self.releases} releases"


@dataclass(frozen=True, kw_only=True)
class RowCharges:
    """One line of row-charges.jsonl: what a round may cost the rows of silos, before it is asked.

    start: the hash of the state with which the round begins.
    silos: the numbers of the release of each silo that may train. rounded: those of them whose
        numbers of rows are not known exactly.
    """

    round: RoundNumber
    mechanism: str
    start: str
    silos: dict[str, Metrics]
    rounded: tuple[str, ...] = ()


def _rounded_up(epsilon: float) -> str:
    """The least ε of four digits that is not below the exact one."""
    if not epsilon:
        return "0"
    exact = Decimal(str(epsilon))
    last_digit = Decimal(1).scaleb(exact.adjusted() - 3)
    return f"{float(exact.quantize(last_digit, rounding=ROUND_CEILING)):.4g}"
