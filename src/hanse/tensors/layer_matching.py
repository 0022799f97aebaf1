"""Distances of the inner outputs of two models, layer by layer, for models of any two depths.

FedKD (Wu et al. 2022, 2108.13323) brings a small model's hidden states and attention close to those
of a large one. The paper gives no pairs of layers; those here are the ones of its published code.
"""

import torch
from torch import Tensor


def pairs(first: int, second: int) -> list[tuple[int, int]]:
    """The layers, counted from 1, of two models of so many layers that are compared.

    All layers of the shallower model take part: its last one with the deeper model's last one, and
    each layer below with the one that is r = ⌊deeper / shallower⌋ layers further down.
    """
    shallow, deep = sorted((first, second))
    ratio = deep // shallow
    places = [(layer, deep - (shallow - layer) * ratio) for layer in range(1, shallow + 1)]
    return [(a, b) if first == shallow else (b, a) for a, b in places]


def hidden_distance(first: Tensor, second: Tensor) -> Tensor:
    """The mean of (h − g)² over the pairs of layers, places and numbers of hidden states; a scalar.

    first, second: (layers + 1, N, width); the input of the first layer is not compared. Raises
    ValueError for unequal widths.
    """
    if first.shape[2] != second.shape[2]:
        raise ValueError(f"hidden states of {first.shape[2]} and of {second.shape[2]} numbers")
    one, other = _matched(first[1:], second[1:])
    return (one - other).square().mean()


def attention_distance(first: Tensor, second: Tensor) -> Tensor:
    """The mean of Σ (a − b)² over the pairs of layers, places and heads, summed over tokens.

    The sum does not depend on padding, whose weights are 0; the mean over tokens, as in the paper,
    would. first, second: (layers, N, heads, tokens) weights. Returns a scalar. Raises ValueError
    for unequal numbers of heads.
    """
    if first.shape[2] != second.shape[2]:
        raise ValueError(f"{first.shape[2]} and {second.shape[2]} heads of attention")
    one, other = _matched(first, second)
    return (one - other).square().sum(dim=3).mean()


def _matched(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The layers of both that are compared, in the same order."""
    compared = torch.tensor(pairs(len(first), len(second))) - 1
    return first[compared[:, 0]], second[compared[:, 1]]
