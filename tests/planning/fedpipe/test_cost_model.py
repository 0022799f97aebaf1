"""Seconds of training steps, predicted from a few that were measured."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from hanse.planning.fedpipe.cost_model import CostModel, StepSetting, fitted, next_probe

SETTINGS = [
    StepSetting(*values)
    for values in itertools.product((1, 2, 4, 8), (32, 64, 128, 256), (4, 16, 64), (2, 6, 12))
]
TRUE = CostModel(np.array([2e-2, 3e-4, 4e-5, 1e-7, 5e-6, 2e-7]), None)


def measured(setting: StepSetting, noise: float, draw: np.random.Generator) -> float:
    return TRUE.seconds(setting) * float(np.exp(noise * draw.normal()))


def probed(count: int) -> list[StepSetting]:
    found: list[StepSetting] = []
    while len(found) < count and (setting := next_probe(SETTINGS, found)) is not None:
        found.append(setting)
    return found


def test_as_many_exact_probes_as_terms_give_the_coefficients_back() -> None:
    model = fitted([(setting, TRUE.seconds(setting)) for setting in probed(6)])
    np.testing.assert_allclose(model.coefficients, TRUE.coefficients, rtol=1e-6)


def test_eight_noisy_probes_predict_other_settings() -> None:
    errors, orders, told = [], [], []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        probes = probed(8)
        model = fitted([(setting, measured(setting, 0.05, draw)) for setting in probes])
        others = [setting for setting in SETTINGS if setting not in probes]
        chosen = [others[place] for place in draw.choice(len(others), 12, replace=False)]
        true = [TRUE.seconds(setting) for setting in chosen]
        predicted = [model.seconds(setting) for setting in chosen]
        errors.append(np.mean(np.abs(np.array(predicted) / true - 1)))
        orders.append(spearmanr(predicted, true).statistic)
        told.append(model.error)
    assert np.mean(errors) <= 0.15 and np.mean(orders) >= 0.9
    assert all(error is not None and 0 < error < 1 for error in told)


def test_nothing_is_predicted_to_cost_less_with_more_work() -> None:
    draw = np.random.default_rng(0)
    model = fitted([(setting, measured(setting, 0.3, draw)) for setting in probed(4)])
    small = StepSetting(2, 64, 4, 2)
    for larger in (StepSetting(4, 64, 4, 2), StepSetting(2, 128, 4, 2), StepSetting(2, 64, 4, 6)):
        assert model.seconds(larger) >= model.seconds(small) > 0


def test_probes_differ_and_end_with_the_candidates() -> None:
    few = SETTINGS[:3]
    found: list[StepSetting] = []
    while (setting := next_probe(few, found)) is not None:
        found.append(setting)
    assert sorted(found) == sorted(few)


def test_two_probes_have_no_error_and_none_are_refused() -> None:
    assert fitted([(setting, 1.0) for setting in SETTINGS[:2]]).error is None
    for probes in ([], [(SETTINGS[0], 0.0)]):
        with pytest.raises(ValueError, match="each took some time"):
            fitted(probes)
