"""Bulyan against loops of its own, and against Flower's."""

import numpy as np
import pytest
from flwr.server.strategy.aggregate import aggregate_bulyan, aggregate_krum

from collected_rounds import attacked, combined, honest, round_of
from hanse.errors import UserError
from hanse.federation.aggregators.bulyan import Bulyan


def twin(rows: np.ndarray, attackers: int) -> list[float]:
    """The rule by loops over dense rows."""
    left, chosen = [*rows], []
    for _ in range(len(rows) - 2 * attackers):
        nearest = max(1, len(left) - attackers - 2)
        apart = [[((x - y) ** 2).sum() for y in left] for x in left]
        keys = [(sum(sorted(own)[1 : 1 + nearest]), sum(own)) for own in apart]
        chosen.append(left.pop(keys.index(min(keys))))
    result = []
    for column in np.array(chosen).T:
        ordered = sorted(column)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        near = sorted(column, key=lambda value: abs(value - middle))
        result.append(np.mean(near[: len(chosen) - 2 * attackers]))
    return result


@pytest.mark.parametrize(("clients", "attackers"), [(7, 1), (11, 2), (12, 2), (15, 3), (5, 0)])
def test_it_is_its_twin(clients: int, attackers: int) -> None:
    rows = honest(clients)
    result = combined(Bulyan(attackers=attackers), rows)
    np.testing.assert_allclose(result, twin(rows, attackers), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clients", [15, 16])
def test_it_is_flowers(clients: int) -> None:
    """With three attackers no two updates have equal scores, which Flower's order would decide."""
    rows = honest(clients, seed=1)
    [expected] = aggregate_bulyan([([row], 7) for row in rows], 3, aggregate_krum, to_keep=0)
    result = combined(Bulyan(attackers=3), rows)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_as_many_again_as_attackers_are_left_out() -> None:
    """Of two equal attackers one may be chosen late; the second step takes its values away."""
    made = round_of(attacked(honest(11), 2))
    aggregate = Bulyan(attackers=2).aggregate(made)  # type: ignore[arg-type]
    assert len(aggregate.excluded) == 4 and {"c9", "c10"} & {*aggregate.excluded}


def test_it_needs_many_clients() -> None:
    Bulyan(attackers=2).require_clients(11)
    with pytest.raises(UserError, match=r"at least 11 .* to bear 2 attackers, .* to at most 1, or"):
        Bulyan(attackers=2).require_clients(10)
