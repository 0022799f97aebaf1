"""The grid of secure sums: sums are exact to half a step for each client, and never wrap around."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.secure_sums.grid import Grid, from_tensors, to_tensors

GRID = Grid(clients=5, bits=32, clip=2.0, weight_bound=40.0)


def summand(weight: float, x: Tensor, numbers: tuple[float, ...] = ()) -> dict[str, Tensor]:
    more = {"#numbers": torch.tensor(numbers, dtype=torch.float64) * weight} if numbers else {}
    return {"x": x.double() * weight, "#weight": torch.tensor(weight).double(), **more}


def added(grid: Grid, summands: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    total = grid.zeros(summands[0])
    for words in map(grid.encode, summands):
        for name, value in words.items():
            total[name] += value
    return grid.decode(total)


def test_a_sum_is_exact_to_half_a_step_of_each_client() -> None:
    draw = torch.Generator().manual_seed(1)
    weights = [40.0, 7.0, 12.0, 0.0, 33.0]
    values = [torch.rand(1000, generator=draw).double() * 4 - 2 for _ in weights]
    summands = [summand(w, x, (0.123, 5.0)) for w, x in zip(weights, values, strict=True)]
    total, clipped = added(GRID, summands)
    exact = sum((s["x"] for s in summands), torch.zeros(1000).double())
    assert float((total["x"] - exact).abs().max()) <= 2.5 * GRID.step * GRID.weight_bound
    assert float(total["#weight"]) == sum(weights)
    assert total["#numbers"].tolist() == pytest.approx([92 * 0.123, 92 * 5.0], rel=1e-8)
    assert clipped == 0


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("clients", [3, 11, 100])
def test_the_largest_sums_do_not_wrap_around(bits: int, clients: int) -> None:
    grid = Grid(clients, bits, clip=1.0, weight_bound=8.0)
    for sign in (1.0, -1.0):
        total, clipped = added(grid, [summand(8.0, torch.tensor([5.0 * sign]))] * clients)
        assert float(total["x"]) == pytest.approx(sign * 8.0 * clients)
        assert clipped == clients
    # Half of the words stay unused, and not much more.
    assert clients * grid.levels < 2 ** (bits - 2)
    assert (clients + 1) * (grid.levels + 1) > 2 ** (min(bits, 55) - 2)


def test_words_are_the_rounded_numbers() -> None:
    x = torch.tensor([0.3, -1.9, 2.0, 1e-12])
    words = GRID.encode(summand(10.0, x))["x"]
    for word, value in zip(words.view(np.int32).tolist(), x.double().tolist(), strict=True):
        assert word == round(Fraction(value) * 10 / 40 / Fraction(GRID.step))


def test_numbers_beyond_the_clip_are_counted() -> None:
    x = torch.tensor([1.9, 2.1, -5.0, 7.9])
    assert added(GRID, [summand(40.0, x)])[1] == 3
    assert added(GRID, [summand(10.0, x)])[1] == 0  # a quarter of the weight: four times the room


def test_a_client_refuses_what_no_word_can_hold() -> None:
    with pytest.raises(UserError, match="weight is above 40, the largest that the server"):
        GRID.encode(summand(41.0, torch.ones(1)))
    with pytest.raises(UserError, match="numbers in x that are not finite"):
        GRID.encode(summand(1.0, torch.tensor([torch.nan])))
    with pytest.raises(UserError, match=r"numbers, times its weight, is above 6.71089e\+08"):
        GRID.encode(summand(40.0, torch.ones(1), (1e9,)))


def test_words_travel_as_tensors() -> None:
    words = GRID.encode(summand(3.0, torch.tensor([[1.0, -1.0]]), (1.0,)))
    tensors = to_tensors(words)
    layout = GRID.layout(summand(3.0, torch.zeros(1, 2), (1.0,)))
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        n: (t.shape, t.dtype) for n, t in layout.items()
    }
    for name, value in from_tensors(tensors).items():
        assert (value == words[name]).all()


def test_a_client_refuses_a_grid_that_would_leave_little_of_its_numbers() -> None:
    """Otherwise a server could choose a bound that leaves one client's numbers alone in the sum."""
    small = torch.full((1000,), 1e-3)
    fine = Grid(5, 32, clip=2.0, weight_bound=40.0)
    fine.encode(summand(40.0, small))
    fine.encode(summand(40.0, torch.zeros(10)))
    for coarse in (Grid(5, 32, 2.0, 4e7), Grid(5, 16, 2.0, 40.0), Grid(5, 32, 1e7, 40.0)):
        with pytest.raises(UserError, match=r"numbers have .* steps of the grid on average"):
            coarse.encode(summand(40.0, small))


def test_a_mask_that_is_left_in_the_sum_is_seen() -> None:
    words = GRID.encode(summand(40.0, torch.full((64,), 1.9)))
    assert not GRID.overflows(words, 1)
    draw = np.random.default_rng(1)
    masked = {**words, "x": draw.integers(0, 2**32, 64, dtype=np.uint32)}
    assert GRID.overflows(masked, 5)
