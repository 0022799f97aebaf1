"""Seconds of a training step from a few measured ones, with the error of the prediction.

The seconds of a step are a sum of terms that each cost something or nothing: Σ_i c_i·φ_i with
c_i ≥ 0 and

    φ = 1, T, T·d, T·r·d, r·d, T·S

for T tokens of a batch, rows of S tokens, and adapters of rank r in the d upper layers: a fixed
part, the forward pass, the backward pass of the layers with adapters, the adapters' products, the
optimizer, and attention. The coefficients minimize Σ (ŷ/y - 1)², so that short steps count as much
as long ones. The terms are a reconstruction: FedPipe (2404.06448) has no published model of cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Vector = NDArray[np.float64]
NEGLIGIBLE = 1e-3  # of the terms' largest values


class StepSetting(NamedTuple):
    """The settings on which the seconds of a step depend.

    rows: of a batch. length: tokens of a row, padding included. rank: of the adapters. depth: the
    number of upper layers that have adapters, which gradients flow through.
    """

    rows: int
    length: int
    rank: int
    depth: int

    @property
    def terms(self) -> Vector:
        """φ, whose coefficients are fitted."""
        tokens = float(self.rows * self.length)
        adapters = float(self.rank * self.depth)
        deep = tokens * self.depth
        return np.array([1.0, tokens, deep, tokens * adapters, adapters, tokens * self.length])


@dataclass(frozen=True)
class CostModel:
    """Fitted coefficients of φ, and the mean relative error on settings that were left out.

    error: of each probe, predicted by the others; None with fewer than three probes.
    """

    coefficients: Vector
    error: float | None

    def seconds(self, setting: StepSetting) -> float:
        """The predicted seconds of a step."""
        return float(setting.terms @ self.coefficients)


def fitted(probes: Sequence[tuple[StepSetting, float]]) -> CostModel:
    """The model of measured steps: their settings and seconds, which must be above 0."""
    if not probes or any(not seconds > 0 for _, seconds in probes):
        raise ValueError("a model of cost needs probes, and each took some time")
    left_out = [
        abs(float(setting.terms @ _coefficients(_without(probes, place))) / seconds - 1)
        for place, (setting, seconds) in enumerate(probes)
        if len(probes) > 2
    ]
    return CostModel(_coefficients(probes), sum(left_out) / len(left_out) if left_out else None)


def next_probe(
    candidates: Sequence[StepSetting], probed: Sequence[StepSetting]
) -> StepSetting | None:
    """The candidate that tells most beyond those that are probed; None if none is left.

    It is the one whose terms, each as a share of its largest value, are farthest from the span of
    the probed ones; after that, the one farthest from the nearest of them.
    """
    left = [setting for setting in candidates if setting not in probed]
    if not left:
        return None
    scale = np.max([setting.terms for setting in candidates], axis=0)
    known = np.array([setting.terms / scale for setting in probed]).reshape(-1, len(scale))

    def new(setting: StepSetting) -> tuple[float, float]:
        terms = setting.terms / scale
        if not len(known):
            return 0.0, -float(terms.sum())  # the cheapest first
        within = known.T @ np.linalg.lstsq(known.T, terms, rcond=None)[0]
        beyond = float(np.linalg.norm(terms - within))
        nearest = float(np.linalg.norm(known - terms, axis=1).min())
        return (beyond if beyond > NEGLIGIBLE else 0.0), nearest

    return max(left, key=new)


def _without(
    probes: Sequence[tuple[StepSetting, float]], place: int
) -> list[tuple[StepSetting, float]]:
    return [*probes[:place], *probes[place + 1 :]]


def _coefficients(probes: Sequence[tuple[StepSetting, float]]) -> Vector:
    """Non-negative least squares of the relative errors."""
    terms = np.array([setting.terms / seconds for setting, seconds in probes])
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-300)
    found: Vector = nnls(terms / scale, np.ones(len(probes)))[0] / scale
    return found
