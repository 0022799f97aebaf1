"""Blocks, scales that are powers of two, and the two halves of an autoencoder."""

import math

import pytest
import torch

from autoencoders import random_code
from hanse.tensors import autoencoder
from hanse.tensors.autoencoder import Autoencoder


def test_the_last_block_is_padded_with_zeros() -> None:
    blocks = autoencoder.split(torch.arange(1.0, 8.0), 4)
    assert blocks.tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]
    assert autoencoder.split(torch.empty(0), 4).shape == (0, 4)
    assert [autoencoder.count(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_scale_is_the_power_of_two_up_to_the_root_mean_square() -> None:
    values = [1.0, 1.99, 2.0, 0.75, 3e-12, 1e30, 0.0, 1e-45]
    blocks = torch.tensor([[v, -v, v, v] for v in values])
    exponents = autoencoder.exponents(blocks).tolist()
    expected = [math.floor(math.log2(v)) for v in values[:6]]
    assert exponents[:6] == expected
    assert exponents[7] == autoencoder.SMALLEST
    scales = autoencoder.scales(torch.tensor(exponents[:6], dtype=torch.int8))
    assert scales[:, 0].tolist() == [2.0**e for e in expected]
    ends = torch.tensor([autoencoder.SMALLEST, autoencoder.LARGEST], dtype=torch.int8)
    assert autoencoder.scales(ends).tolist() == [[2.0**-126], [2.0**126]]


def test_both_halves_are_a_linear_map_with_a_hidden_layer_beside_it() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, 6), (3, 6), (2, 3), (6, 2), (3, 2), (6, 3)]
    w, u, v, w_back, u_back, v_back = (torch.randn(shape, generator=draw) for shape in shapes)
    network = Autoencoder(w, u, v, w_back, u_back, v_back)
    assert (network.block, network.code) == (6, 2)
    x = torch.randn(6, generator=draw)
    code = [
        sum(float(w[k, b] * x[b]) for b in range(6))
        + sum(float(v[k, h]) * math.tanh(float(u[h] @ x)) for h in range(3))
        for k in range(2)
    ]
    torch.testing.assert_close(network.to_codes(x.unsqueeze(0))[0], torch.tensor(code))
    back = w_back @ torch.tensor(code) + v_back @ torch.tanh(u_back @ torch.tensor(code))
    torch.testing.assert_close(network.to_blocks(torch.tensor([code]))[0], back)


def test_tensors_that_are_no_autoencoder_are_refused() -> None:
    tensors = dict(random_code(8, 2).tensors)
    assert Autoencoder.read({**tensors, "other": torch.zeros(1)}).block == 8
    with pytest.raises(ValueError, match="its encode is no matrix"):
        Autoencoder.read({**tensors, "encode": torch.zeros(8)})
    with pytest.raises(ValueError, match="its decode_out is no float32 matrix of 8 × 1"):
        Autoencoder.read({**tensors, "decode_out": tensors["decode_out"].double()})
