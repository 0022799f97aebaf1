"""Parts of layouts: cut, padded and covered as a loop over elements does it; strangers' refused."""

import itertools
import json
import random
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors import layouts
from hanse.tensors.named import layout, shapes

GOOD = ["a", [2, 3], "torch.float32"]


def whole(draw: random.Random) -> dict[str, Tensor]:
    """Tensors of one to three dimensions."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    sizes = {name: [draw.randint(1, 5) for _ in range(draw.randint(1, 3))] for name in "abcd"}
    return {name: torch.randn(shape, generator=generator) for name, shape in sizes.items()}


def part(draw: random.Random, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some of the names, each with a shape that is at most as large."""
    names = draw.sample(sorted(tensors), draw.randint(1, len(tensors)))
    sizes = {name: [draw.randint(1, size) for size in tensors[name].shape] for name in names}
    return layout({name: torch.empty(shape) for name, shape in sizes.items()})


def places(form: Tensor) -> Any:
    """The indices of all elements."""
    return itertools.product(*(range(size) for size in form.shape))


@pytest.mark.parametrize("seed", range(20))
def test_cut_padded_and_coverage_equal_a_loop_over_elements(seed: int) -> None:
    draw = random.Random(seed)
    tensors = whole(draw)
    form = part(draw, tensors)
    piece = layouts.cut(tensors, form)
    assert {n: t.shape for n, t in piece.items()} == {n: t.shape for n, t in form.items()}
    wide, mask = (f(piece, layout(tensors)) for f in (layouts.padded, layouts.coverage))
    assert wide.keys() == mask.keys() == tensors.keys()
    for name, tensor in tensors.items():
        for place in places(tensor):
            inside = name in form and all(map(int.__lt__, place, form[name].shape))
            assert mask[name][place] == float(inside)
            assert wide[name][place] == (tensor[place] if inside else 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_is_over_those_that_have_an_element(seed: int) -> None:
    draw = random.Random(seed)
    tensors = whole(draw)
    forms = [part(draw, tensors) for _ in range(4)]
    weights = [draw.choice((0.5, 1.0, 3.0)) for _ in forms]
    parts = [{n: torch.randn(t.shape) for n, t in form.items()} for form in forms]
    found = layouts.mean(list(zip(weights, parts, strict=True)))
    assert found.keys() == set().union(*parts)
    for name, tensor in found.items():
        for place in places(tensor):
            pairs = [
                (weight, float(one[name][place]))
                for weight, one in zip(weights, parts, strict=True)
                if name in one and all(map(int.__lt__, place, one[name].shape))
            ]
            total = sum(weight for weight, _ in pairs)
            exact = sum(w * value for w, value in pairs) / total if pairs else 0.0
            assert float(tensor[place]) == pytest.approx(exact, abs=1e-6)


def test_a_cut_shares_no_memory() -> None:
    tensors = {"a": torch.zeros(3, 3)}
    layouts.cut(tensors, layout({"a": torch.empty(2, 3)}))["a"].add_(1)
    assert not tensors["a"].any()


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"b": torch.empty(2, 3)}, "trains b, which is not in the server's adapter"),
        ({"a": torch.empty(2, 4)}, r"trains a as \(2, 4\) .* no part of the server's \(2, 3\)"),
        ({"a": torch.empty(2)}, r"trains a as \(2,\)"),
        ({"a": torch.empty(2, 3, dtype=torch.float64)}, "torch.float64, which is no part"),
    ],
)
def test_what_is_no_part_of_the_whole_is_refused(form: dict[str, Tensor], sentence: str) -> None:
    tensors = layout({"a": torch.empty(2, 3)})
    layouts.refuse_outside(layout({"a": torch.empty(1, 3)}), tensors)
    with pytest.raises(UserError, match=sentence):
        layouts.refuse_outside(layout(form), tensors)


def test_a_layout_survives_plain_json() -> None:
    forms = layout({"b": torch.empty(4, 2), "a": torch.empty(3, dtype=torch.bfloat16)})
    again = layouts.parse(json.loads(json.dumps(shapes(forms))))
    assert shapes(again) == shapes(forms)
    assert all(form.device.type == "meta" for form in again.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (None, "lists 1 to 10,000 tensors"),
        ([], "lists 1 to 10,000 tensors"),
        ([GOOD] * 10_001, "lists 1 to 10,000 tensors"),
        ([GOOD, GOOD], "two tensors of one name"),
        ([["a", [2, 3]]], r"listed as \[name, sizes, dtype\]"),
        (["abc"], r"listed as \[name, sizes, dtype\]"),
        ([[3, [2], "torch.float32"]], "1 to 300 printable characters"),
        ([["", [2], "torch.float32"]], "1 to 300 printable characters"),
        ([["a" * 301, [2], "torch.float32"]], "1 to 300 printable characters"),
        ([["a\n", [2], "torch.float32"]], "1 to 300 printable characters"),
        ([["a", [0], "torch.float32"]], "sizes that no tensor has"),
        ([["a", [-1, -5], "torch.float32"]], "sizes that no tensor has"),
        ([["a", [True], "torch.float32"]], "sizes that no tensor has"),
        ([["a", [2.0], "torch.float32"]], "sizes that no tensor has"),
        ([["a", 7, "torch.float32"]], "sizes that no tensor has"),
        ([["a", [1] * 9, "torch.float32"]], "sizes that no tensor has"),
        ([["a", [2**20] * 8, "torch.float32"]], "sizes that no tensor has"),
        ([["a", [10**4000], "torch.float32"]], "sizes that no tensor has"),
        ([["a", [2], "int8"]], "a dtype other than torch.float64"),
        ([["a", [2], ["x"]]], "a dtype other than torch.float64"),
        ([[name, [2**39], "torch.float32"] for name in "abc"], "elements, more than"),
    ],
)
def test_a_strangers_layout_is_bounded(values: Any, sentence: str) -> None:
    before = time.process_time()
    with pytest.raises(ValueError, match=sentence):
        layouts.parse(values)
    assert time.process_time() - before < 0.5
