"""Pairs of layers as FedKD's code forms them, and distances against their definitions."""

import pytest
import torch
from torch.autograd import gradcheck

from hanse.tensors.layer_matching import attention_distance, hidden_distance, pairs


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (12, 4, [(3, 1), (6, 2), (9, 3), (12, 4)]),  # FedKD's: 12 // 4 layers further down each
        (4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        (3, 3, [(1, 1), (2, 2), (3, 3)]),
        (7, 3, [(3, 1), (5, 2), (7, 3)]),
        (5, 4, [(2, 1), (3, 2), (4, 3), (5, 4)]),
    ],
)
def test_the_last_layers_are_paired_and_those_below_at_equal_steps(
    first: int, second: int, expected: list[tuple[int, int]]
) -> None:
    assert pairs(first, second) == expected


def test_hidden_states_have_the_mean_squared_error_of_paired_layers() -> None:
    deep, shallow = torch.randn(5, 3, 6), torch.randn(3, 3, 6)
    expected = ((deep[2] - shallow[1]) ** 2).mean() + ((deep[4] - shallow[2]) ** 2).mean()
    assert float(hidden_distance(deep, shallow)) == pytest.approx(float(expected / 2))
    assert float(hidden_distance(shallow, deep)) == pytest.approx(float(expected / 2))
    assert float(hidden_distance(deep, deep)) == 0


def test_attention_is_compared_at_the_same_pairs_whatever_the_padding() -> None:
    deep, shallow = torch.rand(4, 3, 2, 7), torch.rand(2, 3, 2, 7)
    expected = ((deep[1] - shallow[0]) ** 2).sum() + ((deep[3] - shallow[1]) ** 2).sum()
    found = attention_distance(deep, shallow)
    assert float(found) == pytest.approx(float(expected) / (2 * 3 * 2))
    wider = (torch.nn.functional.pad(weights, (0, 5)) for weights in (deep, shallow))
    assert float(attention_distance(*wider)) == pytest.approx(float(found))


@pytest.mark.parametrize("distance", [hidden_distance, attention_distance])
def test_gradients_flow_into_both(distance: object) -> None:
    deep, shallow = torch.randn(5, 2, 3, 4).double(), torch.randn(3, 2, 3, 4).double()
    if distance is hidden_distance:
        deep, shallow = deep[:, 0], shallow[:, 0]
    assert gradcheck(distance, (deep.requires_grad_(), shallow.requires_grad_()))


def test_unequal_shapes_have_no_distance() -> None:
    with pytest.raises(ValueError, match="hidden states of 6 and of 8 numbers"):
        hidden_distance(torch.zeros(3, 2, 6), torch.zeros(3, 2, 8))
    with pytest.raises(ValueError, match="4 and 2 heads of attention"):
        attention_distance(torch.zeros(3, 2, 4, 5), torch.zeros(3, 2, 2, 5))
