"""Summands: what a rule that sees sums only adds up, and what follows from their sum."""

import math

import pytest
import torch

from hanse.errors import UserError
from hanse.federation import sums
from hanse.federation.messages import Update
from hanse.tensors.named import Tensors, layout


def total(*updates: Update) -> Tensors:
    summands = [sums.summand(update, ("sum_a",), ("loss",)) for update in updates]
    return {name: sum((s[name] for s in summands), torch.tensor(0.0)) for name in summands[0]}


def update(weight: float, **numbers: float) -> Update:
    return Update({"w": torch.tensor([weight, 1.0])}, {"sum_a": 1.0, **numbers}, weight)


def test_a_sum_contains_the_weighted_mean() -> None:
    mean = sums.mean(total(update(1, loss=2.0), update(3, loss=6.0)), ("sum_a",), ("loss",))
    assert (mean.weight, mean.numbers) == (4.0, {"loss": 5.0, "sum_a": 1.0})
    assert mean.tensors["w"].tolist() == [2.5, 1.0] and mean.tensors["w"].dtype == torch.float64


def test_a_number_that_is_shown_is_the_mean_of_those_who_report_it() -> None:
    mean = sums.mean(total(update(1, loss=2.0), update(3)), ("sum_a",), ("loss",))
    assert mean.numbers == {"loss": 2.0, "sum_a": 1.0}
    assert sums.mean(total(update(3)), ("sum_a",), ("loss",)).numbers == {"sum_a": 1.0}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_client_whose_loss_is_not_finite_refuses(loss: float) -> None:
    with pytest.raises(UserError, match=f"this client's loss is {loss}, which no sum can contain"):
        sums.summand(update(3, loss=loss), ("sum_a",), ("loss",))


def test_a_summand_has_the_layout_that_follows_from_the_update() -> None:
    expected = layout({"w": torch.zeros(2)})
    for numbers, shown in ((("sum_a",), ("loss",)), ((), ("loss",)), (("sum_a",), ()), ((), ())):
        made = sums.summand(update(2, loss=1.0), numbers, shown)
        form = sums.summand_layout(expected, numbers, shown)
        assert {n: (t.shape, t.dtype) for n, t in made.items()} == {
            n: (t.shape, t.dtype) for n, t in form.items()
        }


def test_a_number_that_the_algorithm_needs_must_be_reported() -> None:
    with pytest.raises(UserError, match="reports no sum_a, which the algorithm needs"):
        sums.summand(Update({}), ("sum_a",), ("loss",))


def test_whole_numbers_stay_whole() -> None:
    large = Update({"w": torch.tensor([2**60 + 1, -3])}, {}, 1.0)
    made, form = sums.summand(large, ()), sums.summand_layout(layout(large.tensors), ())
    assert made["w"].dtype == form["w"].dtype == torch.int64 and made["w"][0] == 2**60 + 1
    assert sums.whole(form) == {"w"}
    assert sums.mean({**made, "#weight": torch.tensor(2.0)}, ()).tensors["w"][1] == -1.5
    with pytest.raises(ValueError, match=r"has the weight 3\.0, and 1 is due"):
        sums.summand(Update({"w": torch.tensor([1])}, {}, 3.0), ())
