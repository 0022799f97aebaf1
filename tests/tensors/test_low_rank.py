"""Products of low rank against the dense matrices that they stand for."""

import pytest
import torch

from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors

OUT, IN = 30, 20


def drawn(rank: int, seed: int, out: int = OUT, width: int = IN) -> Factors:
    draw = torch.Generator().manual_seed(seed)
    up = torch.randn(out, rank, generator=draw, dtype=torch.float64)
    return Factors(up, torch.randn(rank, width, generator=draw, dtype=torch.float64))


RANKS, WEIGHTS = (4, 8, 16), (0.5, 0.2, 0.3)
PARTS = [(w, drawn(rank, seed)) for seed, (w, rank) in enumerate(zip(WEIGHTS, RANKS, strict=True))]
DENSE = sum(weight * part.up @ part.down for weight, part in PARTS)


def test_a_stack_is_the_weighted_sum_of_products() -> None:
    stack = low_rank.stacked(PARTS)
    assert stack.rank == sum(RANKS)
    torch.testing.assert_close(stack.product(), DENSE)


def test_a_weighted_mean_needs_no_weights_that_sum_to_one() -> None:
    parts = [(10 * weight, {"q": part, "v": part}) for weight, part in PARTS]
    parts[0][1].pop("v")
    found = low_rank.mean(parts)
    torch.testing.assert_close(found["q"].product(), DENSE)
    without = DENSE - WEIGHTS[0] * PARTS[0][1].product()
    torch.testing.assert_close(found["v"].product(), without)


@pytest.mark.parametrize("rank", [1, 3, 8, 19, 20, 28, None])
def test_the_shortened_product_is_the_truncated_svd_of_the_dense_one(rank: int | None) -> None:
    found, lost = low_rank.shortened(low_rank.stacked(PARTS), rank)
    u, s, vh = torch.linalg.svd(DENSE, full_matrices=False)
    kept = min(rank or IN, IN)
    assert found.rank == kept  # the stack's rank, 28, is more than the matrix has
    torch.testing.assert_close(found.product(), (u[:, :kept] * s[:kept]) @ vh[:kept])
    tail = float(s[kept:].square().sum().sqrt())
    assert lost == pytest.approx(tail, abs=1e-9)
    assert float((found.product() - DENSE).norm()) == pytest.approx(tail, abs=1e-9)


def test_both_factors_are_equally_large() -> None:
    found, _ = low_rank.shortened(low_rank.stacked(PARTS))
    torch.testing.assert_close(found.up.norm(dim=0), found.down.norm(dim=1))


@pytest.mark.parametrize("by", [2.0, 0.25, -3.0, 0.0])
def test_scaled(by: float) -> None:
    part = drawn(4, 1)
    torch.testing.assert_close(low_rank.scaled(part, by).product(), by * part.product())


def test_padded_is_the_same_product() -> None:
    part = drawn(4, 1)
    wide = low_rank.padded(part, 9)
    assert (wide.up.shape, wide.down.shape) == ((OUT, 9), (9, IN))
    torch.testing.assert_close(wide.product(), part.product())


def test_norm_is_that_of_the_product() -> None:
    part = drawn(4, 1)
    assert low_rank.norm(part) == pytest.approx(float(part.product().norm()))


def test_adapters_by_layer_and_back() -> None:
    tensors = {
        "model.q.lora_A.weight": torch.ones(4, IN),
        "model.q.lora_B.weight": torch.zeros(OUT, 4),
        "model.v.lora_A.weight": torch.ones(4, IN),
        "model.v.lora_B.weight": torch.zeros(OUT, 4),
    }
    layers = low_rank.layers(tensors)
    assert list(layers) == ["model.q", "model.v"]
    again = low_rank.tensors(layers)
    assert list(again) == list(tensors)
    assert all(again[name] is tensors[name] for name in tensors)
