"""Directions change weights in place, chunk by chunk, as the dense vectors of their keys would."""

import pytest
import torch
from torch import Tensor

from hanse.tensors import directions
from hanse.tensors.philox import normals

SEED = 77


def model(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of unequal sizes, whose names are not in order."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"w": (7, 5), "b": (3,), "scale": (), "a": (2, 3, 4)}
    return {
        n: torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for n, s in shapes.items()
    }


def vector(weights: dict[str, Tensor]) -> Tensor:
    """The weights as one vector, in the order of the names."""
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def dense(amounts: dict[int, float], size: int) -> Tensor:
    """Σ aⱼ·z(j) as one vector."""
    vectors = [a * normals((SEED, j), 0, size, torch.device("cpu")) for j, a in amounts.items()]
    return torch.stack(vectors).sum(0)


@pytest.mark.parametrize("chunk", [4, 12, 64, 2**16])
def test_chunks_make_the_dense_sum(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "CHUNK", chunk)
    weights, amounts = model(), {0: 0.5, 3: -2.0, 4000: 1e-3}
    expected = vector(weights) + dense(amounts, 63)
    directions.add(weights, SEED, amounts)
    torch.testing.assert_close(vector(weights), expected, atol=1e-14, rtol=0)


def test_replayed_sums_are_the_sequential_model() -> None:
    weights = model()
    draw = torch.Generator().manual_seed(1)
    seeds = torch.randint(20, (200,), generator=draw).tolist()
    steps = (1e-2 * torch.randn(200, generator=draw, dtype=torch.float64)).tolist()
    sums = torch.zeros(20, dtype=torch.float64)
    for index, step in zip(seeds, steps, strict=True):
        for amount in (1e-3, -2e-3, 1e-3 + step):  # there, beyond, and back with the step
            directions.add(weights, SEED, {index: amount})
        sums[index] += step
    replayed = model()
    directions.add(replayed, SEED, directions.nonzero(sums))
    assert float((vector(weights) - vector(replayed)).abs().max()) <= 1e-12
    assert float((vector(weights) - vector(model())).abs().max()) > 1e-2


def test_a_perturbation_is_taken_back() -> None:
    weights = model(torch.float32)
    for amount in (5e-4, -1e-3, 5e-4):
        directions.add(weights, SEED, {9: amount})
    assert float((vector(weights) - vector(model(torch.float32))).abs().max()) < 3e-7


def test_seeds_without_an_amount_are_not_drawn() -> None:
    assert directions.nonzero(torch.tensor([0.0, 2.0, -0.0, -1.0])) == {1: 2.0, 3: -1.0}
    before = model()
    directions.add(weights := model(), SEED, {})
    assert torch.equal(vector(weights), vector(before))
