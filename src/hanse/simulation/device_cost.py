"""The model of cost of a device: the seconds of a training step from its operations and bytes.

    seconds of a pass = operators · o + max(FLOPs / (mfu · peak), bytes / bandwidth)

The maximum is the roofline (Williams, Waterman and Patterson 2009): a pass is bound by the
processor or by the memory. o are the seconds that Python and torch take for each operator, and mfu
is the share of the peak that products reach. Both are fitted to passes that were measured on this
machine; that other devices have the same o and mfu is an assumption, not a measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from hanse.experiment.devices.settings import DeviceSettings
from hanse.learners.step_cost import PassCost, StepCost


@dataclass(frozen=True)
class Machine:
    """A device as the model of cost sees it.

    peak: FLOP/s of matrix products. bandwidth: bytes a second; None: not known, and then only
    operations and operators take time. mfu: between 0 and 1. overhead: seconds of each operator.
    """

    peak: float
    bandwidth: float | None
    mfu: float
    overhead: float

    @classmethod
    def of(cls, device: DeviceSettings, bf16: bool) -> "Machine":
        """The device, measured parts included.

        bf16: whether it is to compute in bfloat16; it does the other if only that peak is known.
        """
        tflops = device.bf16_tflops if device.uses_bf16(bf16) else device.fp32_tflops
        bandwidth = device.bandwidth_gb_s
        if tflops is None or device.mfu is None or device.operator_us is None:
            raise ValueError("a device's mfu and operator_us must be measured first")
        return cls(
            1e12 * tflops,
            None if bandwidth is None else 1e9 * bandwidth,
            device.mfu,
            device.operator_us / 1e6,
        )

    def seconds(self, cost: PassCost) -> float:
        """The seconds of one pass."""
        moving = cost.bytes / self.bandwidth if self.bandwidth else 0.0
        return cost.operators * self.overhead + max(cost.flops / (self.mfu * self.peak), moving)

    def step(self, cost: StepCost) -> "StepSeconds":
        """The seconds of the passes of a step."""
        passes = (cost.forward, cost.backward, cost.optimizer)
        return StepSeconds(*map(self.seconds, passes))


class StepSeconds(NamedTuple):
    """The seconds of a step's passes."""

    forward: float
    backward: float
    optimizer: float

    @property
    def total(self) -> float:
        """The seconds of the step."""
        return sum(self)


class Measured(NamedTuple):
    """A pass and the seconds that it took."""

    cost: PassCost
    seconds: float


def fitted(passes: Sequence[Measured], peak: float) -> tuple[float, float]:
    """(mfu, seconds of each operator) that fit measured passes best, in relative errors.

    Non-negative least squares of Σ ((operators · o + FLOPs / (mfu · peak)) / seconds - 1)². mfu is
    at most 1: a share above that only says that the peak was measured too low.

    Raises ValueError if no pass has operations.
    """
    terms = np.array([[own.cost.operators, own.cost.flops / peak] for own in passes])
    terms /= np.array([[own.seconds] for own in passes])
    scale = terms.max(axis=0)
    if not scale[1] > 0:
        raise ValueError("a fit needs passes with operations")
    scale[scale == 0] = 1.0
    overhead, inverse = map(float, nnls(terms / scale, np.ones(len(passes)))[0] / scale)
    return (min(1.0, 1 / inverse) if inverse > 0 else 1.0), overhead
