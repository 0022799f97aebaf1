"""Summands: updates in a form whose sum over clients contains their weighted mean.

A rule that sees sums only, such as secure aggregation, adds these tensors and needs to know neither
algorithm nor codec. They are float64, so that weights cost no precision. Tensors of integers stay
integers (int64), which a rule adds as they are; their updates have the weight 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.messages import Update
from hanse.tensors.named import Layout, Tensors, largest

# Names beside those of the update's tensors.
WEIGHT, NUMBERS, REPORTED = "#weight", "#numbers", "#reported"
SLACK = 1e-9  # of a sum of weights, for the rounding of its summands
SHOWN = ("loss",)  # numbers that clients may report, which are summed for the journal alone


def summand(update: Update, numbers: Sequence[str], shown: Sequence[str] = ()) -> dict[str, Tensor]:
    """An encoded update times its weight: its tensors, "#weight" (), and "#numbers" (numbers,).

    "#reported" (shown, 2) has the weighted value and the weight of each number that is only shown;
    both are 0 for one that this client does not report.

    numbers: the names of the numbers that are summed. Raises UserError if one is not reported, and
    if one that is only shown is not finite; and ValueError for integers of another weight than 1.
    """
    if missing := [name for name in numbers if name not in update.numbers]:
        raise UserError(f"this client reports no {missing[0]}, which the algorithm needs.")
    weighted = {name: _times(tensor, update.weight) for name, tensor in update.tensors.items()}
    values = [update.weight * update.numbers[name] for name in numbers]
    weighted[WEIGHT] = torch.tensor(update.weight, dtype=torch.float64)
    if values:
        weighted[NUMBERS] = torch.tensor(values, dtype=torch.float64)
    if shown:
        pairs = [_weighted(update, name) for name in shown]
        weighted[REPORTED] = torch.tensor(pairs, dtype=torch.float64)
    return weighted


def _times(tensor: Tensor, weight: float) -> Tensor:
    if tensor.is_floating_point():
        return tensor.double() * weight
    if weight != 1:
        raise ValueError(f"an update of whole numbers has the weight {weight}, and 1 is due")
    return tensor.long()


def whole(expected: Layout) -> set[str]:
    """The names of the tensors of integers in a layout."""
    forms = {name: largest(form) for name, form in expected.items()}
    return {name for name, form in forms.items() if not form.is_floating_point()}


def _weighted(update: Update, name: str) -> tuple[float, float]:
    """A number times the update's weight, and the weight; zeros for a number that is missing."""
    if name not in update.numbers:
        return 0.0, 0.0
    value = update.numbers[name]
    if not math.isfinite(value):  # without it the sum would be the number of the others alone
        raise UserError(
            f"this client's {name} is {value}, which no sum can contain; lower "
            "train.learning_rate, or look after its rows."
        )
    return update.weight * value, update.weight


def summand_layout(
    expected: Layout, numbers: Sequence[str], shown: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The layout of summands; expected: that of the encoded updates."""
    integers, shapes = whole(expected), {n: largest(form).shape for n, form in expected.items()}
    shapes |= {WEIGHT: torch.Size(())} | ({NUMBERS: torch.Size([len(numbers)])} if numbers else {})
    shapes |= {REPORTED: torch.Size([len(shown), 2])} if shown else {}
    return {
        n: torch.empty(shape, dtype=torch.int64 if n in integers else torch.float64, device="meta")
        for n, shape in shapes.items()
    }


def weight(total: Tensors, most: float, clients: Sequence[str]) -> float:
    """The total weight in a sum of these clients' summands; most: the largest that it may have.

    Raises UserError for one that it cannot have: the mean would be scaled.
    """
    weight = float(total[WEIGHT])
    if not 0 <= weight <= most * (1 + SLACK):
        raise UserError(
            f"the weights of {', '.join(clients)} came to {weight:g}, and at most {most:g} is due; "
            "one of them is wrong, and a rule that sees only sums cannot tell which. Look after "
            "these clients."
        )
    return weight


def in_float64(expected: Layout) -> dict[str, Tensor]:
    """The layout of a mean of updates, before `in_dtypes`; expected: that of one update."""
    return {name: largest(form).double() for name, form in expected.items()}


def mean(total: Tensors, numbers: Sequence[str], shown: Sequence[str] = ()) -> Update:
    """The weighted mean in a sum of summands of a positive total weight, which is its weight.

    Its tensors are float64: those of an encoded update may be of a dtype that is too narrow. A
    number that is only shown is the mean over the clients that report it.
    """
    weight, beside = float(total[WEIGHT]), (WEIGHT, NUMBERS, REPORTED)
    tensors = {n: t.double() / weight for n, t in total.items() if n not in beside}
    means = (total[NUMBERS] / weight).tolist() if numbers else []
    reported = zip(shown, total[REPORTED].tolist() if shown else [], strict=True)
    seen = {name: value / weight for name, (value, weight) in reported if weight > 0}
    return Update(tensors, {**seen, **dict(zip(numbers, means, strict=True))}, weight)


def in_dtypes(tensors: Tensors, expected: Layout) -> dict[str, Tensor]:
    """The tensors in the order and dtypes of a layout."""
    return {name: tensors[name].to(largest(form).dtype) for name, form in expected.items()}
