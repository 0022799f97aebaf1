"""The model of cost of a device, against the closed form, and its fit to measured passes."""

import pytest

from hanse.experiment.devices.settings import DeviceSettings
from hanse.learners.step_cost import PassCost, StepCost
from hanse.simulation.device_cost import Machine, Measured, fitted


def test_a_pass_is_bound_by_the_processor_or_by_the_memory() -> None:
    machine = Machine(peak=1e12, bandwidth=1e10, mfu=0.5, overhead=1e-5)
    assert machine.seconds(PassCost(1e12, 1e9, 100)) == pytest.approx(0.001 + 2.0)
    assert machine.seconds(PassCost(1e10, 1e9, 100)) == pytest.approx(0.001 + 0.1)
    blind = Machine(peak=1e12, bandwidth=None, mfu=0.5, overhead=0)
    assert blind.seconds(PassCost(1e10, 1e15, 100)) == pytest.approx(0.02)


def test_a_step_has_three_passes() -> None:
    machine = Machine(peak=1e12, bandwidth=1e10, mfu=1.0, overhead=0)
    cost = StepCost(PassCost(1e12, 0, 1), PassCost(2e12, 0, 1), PassCost(0, 1e10, 1), tokens=8)
    assert machine.step(cost) == pytest.approx((1, 2, 1))
    assert machine.step(cost).total == 4 and cost.flops == 3e12
    twice = cost.of(tokens=16, batches=3)  # the optimizer does not depend on the tokens
    assert machine.step(twice) == pytest.approx((6, 12, 1))
    assert (twice.tokens, twice.forward.operators) == (48, 3)


def test_the_precision_of_a_device() -> None:
    both = DeviceSettings(fp32_tflops=1, bf16_tflops=8, mfu=0.5, operator_us=3)
    assert Machine.of(both, bf16=True) == Machine(8e12, None, 0.5, 3e-6)
    assert Machine.of(both, bf16=False).peak == 1e12
    only = DeviceSettings(bf16_tflops=8, mfu=0.5, operator_us=3)
    assert only.uses_bf16(False) and Machine.of(only, bf16=False).peak == 8e12
    alone = DeviceSettings(fp32_tflops=1, bandwidth_gb_s=2, mfu=0.5, operator_us=3)
    assert Machine.of(alone, bf16=True) == Machine(1e12, 2e9, 0.5, 3e-6)
    with pytest.raises(ValueError, match="must be measured"):
        Machine.of(DeviceSettings(fp32_tflops=1), bf16=False)


def test_the_fit_finds_what_made_the_seconds() -> None:
    passes = [
        Measured(cost, cost.operators * 2e-5 + cost.flops / (0.6 * 1e11))
        for cost in (PassCost(1e8, 0, 100), PassCost(5e9, 0, 100), PassCost(9e9, 0, 150))
    ]
    assert fitted(passes, peak=1e11) == pytest.approx((0.6, 2e-5))


def test_a_peak_that_was_measured_too_low_gives_no_share_above_one() -> None:
    assert fitted([Measured(PassCost(1e9, 0, 0), 1.0)], peak=1e8) == (1.0, 0.0)
    with pytest.raises(ValueError, match="operations"):
        fitted([Measured(PassCost(0, 0, 3), 1.0)], peak=1e8)
