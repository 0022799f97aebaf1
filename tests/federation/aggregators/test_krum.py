"""Krum and multi-Krum against loops of their own, against Flower's, and on products of factors."""

import logging
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from flwr.server.strategy.aggregate import aggregate_krum
from torch import Tensor

from collected_rounds import CollectedRound, attacked, combined, honest, round_of
from hanse.errors import UserError
from hanse.federation.aggregators.krum import Krum
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.messages import Update
from hanse.tensors.low_rank import A, B


def scores(rows: np.ndarray, attackers: int) -> list[float]:
    """Krum's scores by loops over dense rows."""
    result = []
    for i, row in enumerate(rows):
        others = sorted(
            sum((float(x) - float(y)) ** 2 for x, y in zip(row, other, strict=True))
            for j, other in enumerate(rows)
            if j != i
        )
        result.append(sum(others[: len(rows) - attackers - 2]))
    return result


@pytest.mark.parametrize("keep", [1, 3, None])
@pytest.mark.parametrize(("clients", "attackers"), [(5, 1), (10, 2), (11, 4), (4, 0)])
def test_the_lowest_scores_are_averaged(clients: int, attackers: int, keep: int | None) -> None:
    rows = honest(clients)
    best = np.argsort(scores(rows, attackers))[: keep or clients - attackers]
    result = combined(Krum(attackers=attackers, keep=keep), rows)
    np.testing.assert_allclose(result, rows[best].mean(axis=0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_it_is_flowers(keep: int) -> None:
    """Flower's weighs by examples where it averages; 0 keeps its single best."""
    rows, weights = honest(10, seed=1), [float(w) for w in range(1, 11)]
    results = [([row], int(weight)) for row, weight in zip(rows, weights, strict=True)]
    [expected] = aggregate_krum(results, 2, keep)
    result = combined(Krum(attackers=2, keep=keep or 1, weighted=True), rows, weights)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)


def test_clients_that_are_left_out_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        made = round_of(attacked(honest(10), 2))
        aggregate = Krum(attackers=2).aggregate(made)  # type: ignore[arg-type]
    assert aggregate.excluded == ("c8", "c9")
    assert aggregate.clients == tuple(f"c{place}" for place in range(8))
    assert aggregate.weight == 8
    assert "round 1: c8, c9 left out: their updates have the highest scores" in caplog.text


def test_attackers_are_not_to_be_kept() -> None:
    Krum(attackers=2, keep=8).require_clients(10)
    with pytest.raises(UserError, match="2 of 10 clients may be attackers; set it to at most 8"):
        Krum(attackers=2, keep=9).require_clients(10)
    with pytest.raises(UserError, match="krum needs at least 7 clients"):
        Krum(attackers=2, keep=9).require_clients(6)


def lora_round(
    updates: Mapping[str, Update], scalings: Mapping[str, float] = MappingProxyType({})
) -> CollectedRound:
    """A round of FlexLoRA with factors of rank 2, and the scalings of some clients."""
    numbers = {name: {"rank": 2.0, "scaling": scalings.get(name, 1.0)} for name in updates}
    return CollectedRound(updates, FlexLoRA(), numbers=numbers)


def turned(up: Tensor, down: Tensor, seed: int) -> dict[str, Tensor]:
    """Other factors of the same product."""
    by = torch.randn(len(down), len(down), generator=torch.Generator().manual_seed(seed)).double()
    return {"layer" + B: (up @ by).float(), "layer" + A: (by.inverse() @ down).float()}


def factors(clients: int, hostile: int) -> dict[str, Update]:
    """Updates of nearly the same product in unlike factors; its negative at the last clients."""
    draw = torch.Generator().manual_seed(0)
    up = torch.randn(6, 2, generator=draw, dtype=torch.float64)
    down = torch.randn(2, 5, generator=draw, dtype=torch.float64)
    updates = {}
    for place in range(clients):
        noise = 0.01 * torch.randn(6, 2, generator=draw, dtype=torch.float64)
        own = turned(up + noise, down, place)
        if place >= clients - hostile:  # the factors of the first one, with a sign in one of them
            own = {**updates["c0"].tensors, "layer" + B: -updates["c0"].tensors["layer" + B]}
        updates[f"c{place}"] = Update(own, {}, 1.0)
    return updates


def test_factors_are_compared_by_their_products() -> None:
    """Any distance of the factors themselves would take c0 and the hostile ones for neighbours."""
    updates = factors(9, 2)
    aggregate = Krum(attackers=2).aggregate(lora_round(updates))  # type: ignore[arg-type]
    assert aggregate.excluded == ("c7", "c8")
    honest_ones = {name: updates[name] for name in aggregate.clients}
    expected = Mean().aggregate(lora_round(honest_ones))  # type: ignore[arg-type]
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(aggregate.tensors[name], tensor)


def test_products_count_with_their_clients_scaling() -> None:
    """Twice the scaling and half the factor are the same product."""
    updates = factors(7, 0)
    for name in ("c1", "c2"):
        own = dict(updates[name].tensors)
        own["layer" + B] = own["layer" + B] / 2
        updates[name] = Update(own, {}, 1.0)
    halved, twice, before = (
        Krum(attackers=2, keep=4).aggregate(made)  # type: ignore[arg-type]
        for made in (
            lora_round(updates),
            lora_round(updates, {"c1": 2.0, "c2": 2.0}),
            lora_round(factors(7, 0)),
        )
    )
    assert {"c1", "c2"} <= {*halved.excluded}
    assert twice.clients == before.clients and {"c1", "c2"} & {*before.clients}
