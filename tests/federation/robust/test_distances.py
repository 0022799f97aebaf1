"""Distances of updates against those of dense vectors and of products that are formed."""

import numpy as np
import torch

from collected_rounds import CollectedRound, honest, round_of
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.messages import Update
from hanse.federation.robust.distances import inner_products, squared_distances
from hanse.federation.robust.received import Received
from hanse.tensors.low_rank import A, B


def received(made: CollectedRound) -> Received:
    return Received.of(made)  # type: ignore[arg-type]


def test_they_are_those_of_dense_vectors() -> None:
    rows = honest(6, size=200_000)  # more values than are worked on at a time
    products = inner_products(received(round_of(rows)))
    np.testing.assert_allclose(products.numpy(), rows @ rows.T, rtol=1e-9)
    expected = [[((x - y) ** 2).sum() for y in rows] for x in rows]
    np.testing.assert_allclose(squared_distances(products).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_those_of_factors_are_those_of_scaled_products() -> None:
    """Ranks and scalings may differ, and what one client lacks is zero."""
    draw = torch.Generator().manual_seed(0)
    updates, dense, numbers = {}, [], {}
    for place, rank in enumerate((1, 2, 4)):
        tensors = {"head": torch.randn(3, generator=draw)}
        row = [tensors["head"].double()]
        for layer, (out, size) in {"a": (5, 7), "b": (6, 4)}.items():
            up = torch.randn(out, rank, generator=draw)
            down = torch.randn(rank, size, generator=draw)
            if (layer, place) == ("b", 1):  # a client without this layer
                row.append(torch.zeros(out * size))
                continue
            tensors |= {layer + B: up, layer + A: down}
            row.append((place + 1) * (up.double() @ down.double()).flatten())
        updates[f"c{place}"] = Update(tensors, {}, 1.0)
        numbers[f"c{place}"] = {"scaling": place + 1.0}
        dense.append(torch.cat([part.double() for part in row]))
    products = inner_products(received(CollectedRound(updates, FlexLoRA(), numbers=numbers)))
    expected = torch.stack(dense) @ torch.stack(dense).T
    torch.testing.assert_close(products, expected, rtol=1e-9, atol=1e-9)


def test_changes_of_factors_are_compared_as_they_are_sent() -> None:
    updates = {
        name: Update({"a" + B: torch.full((2, 1), sign), "a" + A: torch.full((1, 2), sign)})
        for name, sign in (("c0", 1.0), ("c1", -1.0))
    }
    apart = squared_distances(inner_products(received(CollectedRound(updates))))
    assert apart[0, 1] == 16.0
    apart = squared_distances(inner_products(received(CollectedRound(updates, FlexLoRA()))))
    assert apart[0, 1] == 0.0
