"""Properties of every rule that bears attackers, found by listing the folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collected_rounds import SETTINGS, attacked, combined, honest, round_of, row_of
from hanse import registry
from hanse.errors import UserError
from hanse.federation.aggregators.trimmed_mean import TrimmedMean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.feddistill import FedDistill
from hanse.federation.compatibility.parts import check
from hanse.federation.interfaces.aggregator import TooFewClientsError
from hanse.federation.robust.rule import CountingRule, RobustRule
from toys import Meddler, federate, silos

FOLDER = "federation/aggregators"
RULES: dict[str, RobustRule] = {
    name: registry.build(FOLDER, {name: SETTINGS.get(name, {})})
    for name in registry.names(FOLDER)
    if issubclass(registry.find(FOLDER, name), RobustRule)
}
COUNTING = [name for name, rule in RULES.items() if isinstance(rule, CountingRule)]
# The most that attackers may move the result from the honest mean, in the honest rows' spread. With
# norm bounding each of them moves the mean by the bound, and a trusted update has noise of its own.
FARTHEST = {"norm_bounding": 5.0, "fltrust": 2.0}
TRUSTING = {"fltrust"}  # bear a majority of attackers
every_rule = pytest.mark.parametrize("name", RULES)


def told(rule: RobustRule, attackers: int) -> RobustRule:
    """The rule for this number of attackers, if it counts them."""
    return replace(rule, attackers=attackers) if isinstance(rule, CountingRule) else rule


def test_all_rules_are_here() -> None:
    assert len(RULES) >= 8 and "mean" not in RULES


@every_rule
def test_without_attackers_it_is_near_the_mean(name: str) -> None:
    rows = honest(11, spread=0.1)
    error = np.linalg.norm(combined(told(RULES[name], 0), rows) - rows.mean(axis=0))
    spread = np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    assert error <= 0.5 * spread


@every_rule
def test_equal_updates_come_back(name: str) -> None:
    rows = np.tile(honest(1), (11, 1))
    np.testing.assert_allclose(combined(told(RULES[name], 2), rows), rows[0], rtol=1e-6)


@every_rule
@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_attackers_of_any_norm_leave_the_error_bounded(name: str, size: float) -> None:
    rows = honest(11)
    error = combined(told(RULES[name], 2), attacked(rows, 2, size)) - rows[:9].mean(axis=0)
    spread = np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(error) <= FARTHEST.get(name, 1.0) * spread


@pytest.mark.parametrize("name", sorted(RULES.keys() - TRUSTING))
def test_attackers_in_the_majority_break_it(name: str) -> None:
    """Otherwise the test before would pass with a rule that ignores the updates."""
    rows = honest(11)
    hostile = attacked(rows, 7, 50.0)
    error = combined(told(RULES[name], 2), hostile) - rows[:4].mean(axis=0)
    spread = np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(error) > 1.0 * spread


@every_rule
def test_the_order_of_clients_decides_nothing(name: str) -> None:
    rows = attacked(honest(15), 2, 20.0)
    rule, expected = told(RULES[name], 2), combined(told(RULES[name], 2), rows)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()
        result = row_of(rule.aggregate(round_of(rows, order=order)))  # type: ignore[arg-type]
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@every_rule
def test_numbers_of_examples_count_only_if_the_settings_say_so(name: str) -> None:
    rows, weights = honest(11), [1.0] * 10 + [1e6]
    rule = told(RULES[name], 2)
    np.testing.assert_array_equal(combined(rule, rows, weights), combined(rule, rows))
    if hasattr(rule, "weighted"):
        believing = replace(rule, weighted=True)
        assert np.abs(combined(believing, rows, weights) - combined(rule, rows)).max() > 1e-3
        assert any("examples that they declare" in phrase for phrase in believing.describe(11))


@every_rule
def test_reported_numbers_are_medians(name: str) -> None:
    aggregate = told(RULES[name], 2).aggregate(round_of(honest(11)))  # type: ignore[arg-type]
    places = [int(client[1:]) for client in aggregate.clients]
    assert aggregate.numbers == {"loss": float(np.median(places))}
    assert sorted((*aggregate.clients, *aggregate.excluded), key=lambda c: int(c[1:])) == [
        f"c{place}" for place in range(11)
    ]


@every_rule
def test_a_round_with_too_few_answers_is_paused(name: str) -> None:
    rule = told(RULES[name], 1)
    required = rule.required(1)
    with pytest.raises(TooFewClientsError) as caught:
        rule.aggregate(round_of(honest(required - 1), asked=required))  # type: ignore[arg-type]
    assert (caught.value.left, caught.value.required) == (required - 1, required)
    rule.aggregate(round_of(honest(required), asked=required))  # type: ignore[arg-type]


@every_rule
def test_too_few_clients_are_refused_with_a_way_out(name: str) -> None:
    rule = told(RULES[name], 1)
    required = rule.required(1)
    rule.require_clients(required)
    with pytest.raises(UserError, match=f"^{name} needs at least {required} .*; .*choose the aggr"):
        rule.require_clients(required - 1)


@pytest.mark.parametrize("name", COUNTING)
def test_a_share_of_attackers_is_of_those_asked(name: str) -> None:
    rule = RULES[name]
    assert [rule.expected(n) for n in (4, 5, 10, 11)] == [0, 1, 2, 2]
    assert replace(rule, attackers=0.3).expected(10) == 3  # type: ignore[call-arg]
    [none] = rule.describe(4)
    assert "0.2, and this share of 4 is less than one; name their number" in none
    assert rule.describe(5) == ("1 hostile client of 5 can be borne",)
    assert rule.describe(10) == ("2 hostile clients of 10 can be borne",)
    assert told(rule, 0).describe(4) == ("no hostile client is borne",)


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("value", [-1, 0.5, 0.0, 1.5, "many"])
def test_impossible_numbers_of_attackers_are_refused(name: str, value: object) -> None:
    if value == 0.0:
        assert registry.build(FOLDER, {name: {"attackers": value}}).attackers == 0
        return
    with pytest.raises(UserError, match=rf"{name}\.attackers"):
        registry.build(FOLDER, {name: {"attackers": value}})


@every_rule
def test_users_are_told_whom_it_bears(name: str) -> None:
    [phrase] = RULES[name].describe(11)
    assert "hostile" in phrase and not phrase.endswith(".")


@every_rule
def test_it_takes_no_updates_that_it_cannot_compare(name: str) -> None:
    check(FedAvg(), RULES[name])
    with pytest.raises(UserError, match="choose the aggregator mean"):
        check(registry.build("federation/algorithms", "fedkseed"), RULES[name])


def test_a_round_that_awaits_too_few_clients_is_not_repeated_for_ever(tmp_path: Path) -> None:
    """Enough are asked, but as soon as four have answered the others are late."""

    class Waiting(Meddler):
        def wait_for(self, clients: Sequence[str], required: int) -> bool:
            raise AssertionError("no wait would help")

    settings: dict[str, Any] = {"fraction_train": 0.5, "over_selection": 1.5, "network": Waiting}
    with pytest.raises(UserError, match=r"only 4 of 5 .* in round 1: .* no wait would help; raise"):
        federate(FedAvg(), silos(8), tmp_path / "run", aggregator=TrimmedMean(2), **settings)


@pytest.mark.parametrize("name", ["norm_bounding", "centred_clipping", "coordinate_median"])
def test_a_rule_that_takes_no_factors_names_rules_that_do(name: str) -> None:
    algorithm = registry.build("federation/algorithms", "flexlora")
    with pytest.raises(UserError, match="; choose the aggregator geometric_median or krum, or ano"):
        check(algorithm, RULES[name])


@every_rule
def test_predictions_of_public_rows_are_no_vectors_to_compare(name: str) -> None:
    """Distances of the largest logits would be those of their classes' numbers, too."""
    with pytest.raises(UserError, match="choose the aggregator mean, or another algorithm"):
        check(FedDistill(), told(RULES[name], 1))
