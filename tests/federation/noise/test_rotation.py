"""The randomized Hadamard rotation: orthonormal, inverted, and the same for all clients."""

import math
from dataclasses import replace

import pytest
import torch

from hanse.federation.noise.rotation import (
    BLOCK,
    _hadamard,
    block_size,
    padded_size,
    rotate,
    rotate_back,
)
from hanse.randomness import RoundContext

CONTEXT = RoundContext(3, 2, "c1", rounds=5, clients=11)


@pytest.mark.parametrize(
    ("size", "block", "padded"),
    [(0, 1, 0), (1, 1, 1), (3, 4, 4), (4, 4, 4), (770, 1024, 1024), (4097, 4096, 8192)],
)
def test_sizes(size: int, block: int, padded: int) -> None:
    assert (block_size(size), padded_size(size)) == (block, padded)
    assert padded_size(74_498) == 77_824 == 19 * BLOCK


def test_the_matrix_is_that_of_walsh_and_hadamard() -> None:
    rows = torch.stack([_hadamard(row, 8) for row in torch.eye(8).double()])
    signs = torch.tensor([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)])
    torch.testing.assert_close(rows, signs.double() / math.sqrt(8))


@pytest.mark.parametrize("size", [1, 3, 1000, 9000])
def test_a_rotation_keeps_the_norm_and_is_undone(size: int) -> None:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(size)).double()
    rotated = rotate(vector, CONTEXT)
    assert rotated.shape == (padded_size(size),)
    assert float(rotated.norm()) == pytest.approx(float(vector.norm()), rel=1e-12)
    torch.testing.assert_close(rotate_back(rotated, size, CONTEXT), vector)


def test_it_spreads_any_vector() -> None:
    vector = torch.zeros(BLOCK).double()
    vector[17] = 1.0
    assert float(rotate(vector, CONTEXT).abs().max()) == pytest.approx(1 / 64)


def test_all_clients_of_a_round_rotate_alike_and_no_two_rounds_do() -> None:
    vector = torch.arange(64).double()
    first = rotate(vector, CONTEXT)
    assert torch.equal(first, rotate(vector, replace(CONTEXT, client="", clients=0, rounds=0)))
    assert not torch.equal(first, rotate(vector, replace(CONTEXT, round=3)))
