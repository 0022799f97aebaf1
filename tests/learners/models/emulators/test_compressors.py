"""Modules in place of linear layers: what they compute, what they take, and their gradients."""

from typing import Any

import pytest
import torch
from torch.nn import Linear
from transformers.pytorch_utils import Conv1D

from hanse.learners.models import quantization
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.compressors.low_rank import LowRank, truncated
from hanse.learners.models.emulators.compressors.quantized import Quantized
from hanse.learners.models.emulators.stand_ins import CodedLinear, FactoredLinear, matrix

ROWS, COLUMNS = 24, 40


def linear(kind: type = Linear, bias: bool = True) -> Any:
    torch.manual_seed(0)
    if kind is Conv1D:
        layer = Conv1D(ROWS, COLUMNS)
        torch.nn.init.normal_(layer.bias)
        return layer
    return Linear(COLUMNS, ROWS, bias)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 0.999])
def test_the_rank_is_the_smallest_with_that_share_of_the_energy(energy: float) -> None:
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    up, down = truncated(weight, energy)
    squares = torch.linalg.svdvals(weight.double()).square()
    shares = squares.cumsum(0) / squares.sum()
    rank = len(down)
    assert shares[rank - 1] >= energy
    assert rank == 1 or shares[rank - 2] < energy
    error = (weight - up @ down).double().square().sum()
    torch.testing.assert_close(error, squares[rank:].sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Linear, Conv1D])
def test_factors_compute_the_truncated_matrix(kind: type) -> None:
    layer, x = linear(kind), torch.randn(5, COLUMNS)
    module, rank = LowRank(0.4).compressed(layer)
    assert isinstance(module, FactoredLinear) and rank == len(module.down) > 0
    up, down = truncated(matrix(layer), 0.4)
    torch.testing.assert_close(module(x), x @ (up @ down).T + layer.bias)
    assert sum(p.numel() for p in (module.up, module.down)) < layer.weight.numel()


def test_a_product_is_stored_where_factors_would_be_larger() -> None:
    layer = linear()
    before = layer.weight.clone()
    module, size = LowRank(0.999).compressed(layer)
    assert module is layer and size == 0
    up, down = truncated(before, 0.999)
    torch.testing.assert_close(layer.weight.data, up @ down)
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("kind", [Linear, Conv1D])
@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_codes_are_near_the_matrix_and_small(kind: type, bits: Any) -> None:
    layer = linear(kind)
    module, _ = Quantized(bits).compressed(layer)
    assert isinstance(module, CodedLinear)
    weight, decoded = matrix(layer), module.decoded(torch.float32)
    if bits == "int8":
        bound = weight.abs().amax(1, keepdim=True) / 254
        assert ((weight - decoded).abs() <= bound * 1.0001).all()
    else:
        blocks = weight.flatten().view(-1, 64)
        bound = 0.152 * blocks.abs().amax(1, keepdim=True)
        assert ((blocks - decoded.flatten().view(-1, 64)).abs() <= bound).all()
    size = sum(p.nbytes for p in (module.codes, module.scales))
    assert size <= weight.numel() * (1.25 if bits == "int8" else 0.5625)
    assert sum(map(quantization.count, (module.codes, module.scales))) == weight.numel()


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_codes_with_coarse_scales_are_decoded_in_float32(bits: Any) -> None:
    module, _ = Quantized(bits).compressed(linear().to(torch.bfloat16))
    assert isinstance(module, CodedLinear)
    module.to(torch.bfloat16)
    decoded = module.decoded(torch.float32)
    module.scales.data = module.scales.data.float()
    assert torch.equal(decoded, module.decoded(torch.float32))


def test_a_matrix_that_does_not_fill_its_blocks() -> None:
    layer = Linear(7, 5)
    module, _ = Quantized("nf4").compressed(layer)
    assert isinstance(module, CodedLinear)
    bound = 0.152 * layer.weight.abs().max()
    assert ((layer.weight - module.decoded(torch.float32)).abs() <= bound).all()


@pytest.mark.parametrize("compressor", [Quantized("int8"), Quantized("nf4"), LowRank(0.4)])
def test_gradients_are_those_of_the_dense_product(compressor: Compressor) -> None:
    layer = linear(bias=False)
    module, _ = compressor.compressed(layer)
    x, y = (torch.randn(2, 3, COLUMNS).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    dense = module(torch.eye(COLUMNS)).detach()  # Wᵀ
    weight = torch.randn(2, 3, ROWS)
    (module(x) * weight).sum().backward()
    ((y @ dense) * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_a_decoded_matrix_is_not_kept_for_the_backward_pass() -> None:
    module, _ = Quantized("int8").compressed(linear(bias=False))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        module(torch.randn(1, COLUMNS, requires_grad=True)).sum()
    assert ROWS * COLUMNS not in kept
