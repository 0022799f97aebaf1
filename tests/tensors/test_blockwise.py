"""Blocks of numbers: how codes stand in bytes, and numbers that are cut into blocks and groups."""

import pytest
import torch
from torch import Tensor

from hanse.tensors import blockwise
from hanse.tensors.blockwise import Blocks, even_levels, pack, relative


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_codes_stand_in_bytes_from_the_lowest_bit_up(bits: int) -> None:
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (3, 16), generator=draw, dtype=torch.uint8)
    expected = []
    for row in codes.tolist():
        number = sum(code << (bits * place) for place, code in enumerate(row))
        expected.append(list(number.to_bytes(2 * bits, "little")))
    assert pack(codes, bits).tolist() == expected


def whole_numbers(rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A code that loses nothing of whole numbers from 0 to 15: the scale is the block's length."""
    return rows.to(torch.uint8), lengths.float()


@pytest.mark.parametrize("group", [8, 24, 100, 10**6])
def test_every_number_comes_back_to_its_place(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(blockwise, "GROUP", group)
    draw, blocks = torch.Generator().manual_seed(0), Blocks(size=8, bits=4)
    shapes = [(3, 7), (), (0, 4), (16,), (1,), (5, 20), (8,), (31,)]
    tensors = [torch.randint(0, 16, shape, generator=draw).float() for shape in shapes]
    tensors.append(tensors[5].T)
    codes, scales = blocks.encode(tensors, whole_numbers)
    lengths = []
    for tensor in tensors:
        whole, last = divmod(tensor.numel(), 8)
        lengths += [8] * whole + [last] * (last > 0)
    assert scales.tolist() == lengths, "a block of its own for each tensor, the last one shorter"
    assert len(codes) == sum((tensor.numel() + 1) // 2 for tensor in tensors)
    results = [torch.full(tensor.shape, -1.0) for tensor in tensors]
    blocks.decode(codes, torch.ones_like(scales), torch.arange(16.0), results)
    assert all(map(torch.equal, results, tensors))
    blocks.decode(codes, scales, torch.arange(16.0), results)
    assert results[3][15] == 8 * tensors[3][15] and results[7][30] == 7 * tensors[7][30]


def test_tensors_of_two_bytes_are_filled_too() -> None:
    [half] = results = [torch.zeros(9, dtype=torch.bfloat16)]
    codes = torch.full((9,), 5, dtype=torch.uint8)
    Blocks(8, 8).decode(codes, torch.tensor([1.0, 2.0]), torch.arange(256.0), results)
    assert half.tolist() == [5.0] * 8 + [10.0]


def test_a_code_that_is_never_used_has_no_value() -> None:
    assert torch.equal(even_levels(4)[[0, 1, 7, 15, 9]] * 7, torch.tensor([0.0, 1, 7, -1, -7]))
    assert [torch.isnan(even_levels(bits)).nonzero().tolist() for bits in (4, 8)] == [
        [[8]],
        [[128]],
    ]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_scale_is_as_little_finite_as_its_numbers(value: float) -> None:
    numbers, scales = relative(torch.tensor([[1.0, value, 0.0], [1.0, -4.0, 0.0], [0.0, 0.0, 0.0]]))
    assert not scales[0].isfinite() and scales[1:].tolist() == [4.0, 0.0]
    assert numbers.isfinite().all() and numbers[1:].tolist() == [[0.25, -1.0, 0.0], [0.0] * 3]
