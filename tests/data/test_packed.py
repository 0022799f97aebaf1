"""Examples in arrays are the examples that went in."""

import random
from typing import Any

import numpy as np
import pytest

from hanse.data.example import IGNORED, Example
from hanse.data.packed import Examples, Packed, join, lengths, missing, pack

CHOICES = ((70_000,), (5, 6))


def drawn(count: int, seed: int = 0, choices: tuple[tuple[int, ...], ...] = ()) -> list[Example]:
    """Examples with gaps in what is learned, answers beyond ASCII, or with choices."""
    draw, result = random.Random(seed), []
    for _ in range(count):
        ids = tuple(draw.choices(range(66_000), k=draw.randint(1, 9)))
        if choices:
            result.append(Example(ids, (IGNORED,) * len(ids), choices, draw.randrange(2)))
            continue
        labels = tuple(draw.choice((token, IGNORED)) for token in ids)
        answer = draw.choice(("", "größer", "\N{SNOWMAN} and more"))
        result.append(
            Example(
                ids,
                labels,
                prompt=draw.randint(0, 9),
                answer=answer,
                missing=draw.randint(0, 2**20),
            )
        )
    return result


def all_of(packed: Packed) -> Examples:
    return Examples(packed, np.arange(len(packed), dtype=np.int32))


@pytest.mark.parametrize("choices", [(), CHOICES])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_what_comes_out_is_what_went_in(count: int, choices: Any) -> None:
    examples = drawn(count, choices=choices)
    packed = pack(examples)
    assert list(all_of(packed)) == examples
    assert list(all_of(Packed.of(packed.arrays()))) == examples


@pytest.mark.parametrize("choices", [(), CHOICES])
def test_parts_are_joined_in_order(choices: Any) -> None:
    parts = [drawn(count, count, choices) for count in (0, 3, 0, 20, 1)]
    together = join([pack(part) for part in parts])
    assert list(all_of(together)) == [example for part in parts for example in part]


def test_missing_tokens_are_counted_without_unpacking() -> None:
    examples = drawn(9)
    count = sum(example.missing for example in examples[2:5])
    assert missing(all_of(pack(examples))[2:5]) == missing(examples[2:5]) == count > 0


def test_tags_come_out_as_they_went_in() -> None:
    nothing, classes = (IGNORED, IGNORED, IGNORED), ("NN", "a tag")
    examples = [
        Example((1, 2, 3), nothing, tags=(IGNORED, 1, 0), classes=classes),
        Example((4,), (IGNORED,), tags=(1,), classes=classes),
    ]
    packed = join([pack(examples), pack([]), pack(examples[:1])])
    assert list(all_of(packed)) == [*examples, examples[0]]
    assert list(all_of(Packed.of(packed.arrays()))) == [*examples, examples[0]]
    with pytest.raises(ValueError, match="different choices or classes"):
        pack([*examples, Example((1,), (IGNORED,), tags=(0,), classes=("NN",))])


def test_neighbours_that_are_learned_whole_stay_two() -> None:
    examples = [Example((1, 2), (1, 2)), Example((3,), (IGNORED,)), Example((4, 5), (4, 5))]
    assert list(all_of(pack(examples))) == examples


def test_some_of_them_in_any_order_and_by_slices() -> None:
    examples = drawn(10)
    some = Examples(pack(examples), np.array([7, 2, 2, 9], np.int32))
    assert list(some) == [examples[at] for at in (7, 2, 2, 9)]
    assert some[-1] == examples[9] and len(some[1:3]) == 2
    assert list(some[1:]) == [examples[at] for at in (2, 2, 9)]
    with pytest.raises(IndexError):
        some[4]


def test_lengths_need_no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = drawn(30)
    packed = all_of(pack(examples))[::2]
    monkeypatch.delattr(Packed, "example")
    assert lengths(packed) == lengths(examples[::2]) == [len(example) for example in examples[::2]]


def test_a_token_takes_two_bytes_where_they_do() -> None:
    assert pack([Example((65_535,), (IGNORED,))]).ids.dtype.itemsize == 2
    assert pack([Example((65_536,), (IGNORED,))]).ids.dtype.itemsize == 4


def test_different_choices_do_not_mix() -> None:
    mixed = [*drawn(1), *drawn(1, choices=CHOICES)]
    with pytest.raises(ValueError, match="different choices"):
        pack(mixed)
    with pytest.raises(ValueError, match="different choices"):
        join([pack(mixed[:1]), pack(mixed[1:])])
