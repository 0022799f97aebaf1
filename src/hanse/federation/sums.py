"""Summands: updates in a form whose sum over clients contains their weighted mean.

A rule that sees sums only, such as secure aggregation, adds these tensors and needs to know neither
algorithm nor codec. All are float64, so that weights cost no precision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.messages import Update
from hanse.tensors.named import Layout, Tensors, largest

WEIGHT, NUMBERS = "#weight", "#numbers"  # names beside those of the update's tensors


def summand(update: Update, numbers: Sequence[str]) -> dict[str, Tensor]:
    """An encoded update times its weight: its tensors, "#weight" (), and "#numbers" (numbers,).

    numbers: the names of the numbers that are summed. Raises UserError if one is not reported.
    """
    if missing := [name for name in numbers if name not in update.numbers]:
        raise UserError(f"this client reports no {missing[0]}, which the algorithm needs.")
    weighted = {name: tensor.double() * update.weight for name, tensor in update.tensors.items()}
    values = [update.weight * update.numbers[name] for name in numbers]
    weighted[WEIGHT] = torch.tensor(update.weight, dtype=torch.float64)
    return weighted | ({NUMBERS: torch.tensor(values, dtype=torch.float64)} if values else {})


def summand_layout(expected: Layout, numbers: Sequence[str]) -> dict[str, Tensor]:
    """The layout of summands; expected: that of the encoded updates."""
    shapes = {name: largest(form).shape for name, form in expected.items()}
    shapes |= {WEIGHT: torch.Size(())} | ({NUMBERS: torch.Size([len(numbers)])} if numbers else {})
    return {
        name: torch.empty(shape, dtype=torch.float64, device="meta")
        for name, shape in shapes.items()
    }


def mean(total: Tensors, numbers: Sequence[str], expected: Layout) -> Update:
    """The weighted mean in a sum of summands of a positive total weight, which is its weight.

    expected: the layout of the encoded updates, whose floating-point dtypes the mean gets.
    """
    weight = float(total[WEIGHT])
    tensors = {name: total[name] / weight for name in total.keys() - {WEIGHT, NUMBERS}}
    for name, tensor in tensors.items():
        dtype = largest(expected[name]).dtype
        tensors[name] = tensor.to(dtype) if dtype.is_floating_point else tensor
    means = (total[NUMBERS] / weight).tolist() if numbers else []
    in_order = {name: tensors[name] for name in expected}
    return Update(in_order, dict(zip(numbers, means, strict=True)), weight)
