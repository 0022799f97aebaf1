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


def in_float64(expected: Layout) -> dict[str, Tensor]:
    """The layout of a mean of updates, before `in_dtypes`; expected: that of one update."""
    return {name: largest(form).double() for name, form in expected.items()}


def mean(total: Tensors, numbers: Sequence[str]) -> Update:
    """The weighted mean in a sum of summands of a positive total weight, which is its weight.

    Its tensors are float64: those of an encoded update may be of a dtype that is too narrow.
    """
    weight = float(total[WEIGHT])
    tensors = {name: t / weight for name, t in total.items() if name not in (WEIGHT, NUMBERS)}
    means = (total[NUMBERS] / weight).tolist() if numbers else []
    return Update(tensors, dict(zip(numbers, means, strict=True)), weight)


def in_dtypes(tensors: Tensors, expected: Layout) -> dict[str, Tensor]:
    """The tensors in the order and dtypes of a layout."""
    return {name: tensors[name].to(largest(form).dtype) for name, form in expected.items()}
