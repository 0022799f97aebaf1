"""Splits are disjoint, also where rows repeat, and depend on nothing but the seed."""

import pytest

from hanse.data.formats.row import Row
from hanse.data.holdout import hold_out, split
from hanse.errors import UserError
from hanse.randomness import RoundContext


def _folded(rows: list[Row]) -> set[str]:
    return {" ".join(row.text.casefold().split()) for row in rows}


def _talk(*contents: str) -> tuple[dict[str, str], ...]:
    roles = ("user", "assistant")
    return tuple({"role": roles[i % 2], "content": c} for i, c in enumerate(contents))


def _repeating() -> list[Row]:
    """60 distinct texts, of which every third comes again in other letters and spaces."""
    rows = [Row(text=f"text number {i}", label=str(i % 2)) for i in range(60)]
    return rows + [Row(text=f" TEXT  number {i}\n", label="1") for i in range(0, 60, 3)]


@pytest.mark.parametrize(("test", "validation"), [(10, 5), (0.2, 0.1), (10, 0), (0, 0), (0.2, 6)])
def test_sizes_and_no_straddling(test: int | float, validation: int | float) -> None:
    rows = _repeating()
    train, val, tests = split(rows, test, validation, seed=1)
    assert len(tests) == (test if isinstance(test, int) else round(test * 60))
    assert len(val) == (validation if isinstance(validation, int) else round(validation * 60))
    parts = [_folded(part) for part in (train, val, tests)]
    assert len(parts[1]) == len(val) and len(parts[2]) == len(tests)  # held out: distinct only
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    # Only repetitions of held-out rows are gone.
    assert len(train) == sum(" ".join(r.text.casefold().split()) in parts[0] for r in rows)


def test_the_seed_decides() -> None:
    rows = _repeating()
    assert split(rows, 10, 5, seed=1) == split(rows, 10, 5, seed=1)
    assert split(rows, 10, 5, seed=1)[2] != split(rows, 10, 5, seed=2)[2]


def test_sorted_data_come_out_mixed() -> None:
    rows = [Row(text=f"t{i}", label=str(i // 50)) for i in range(100)]
    train, _, _ = split(rows, 10, 0, seed=3)
    assert 10 < sum(row.label == "0" for row in train[:45]) < 35


@pytest.mark.parametrize(
    "pair",
    [
        (Row(prompt="A  b", completion="x"), Row(prompt="a B", completion="y")),
        (Row(messages=_talk("Hi", "one answer")), Row(messages=_talk("hi ", "another"))),
        (Row(messages=_talk("a", "b", "c", "d")), Row(messages=_talk("a", "B", "c", "e", "f"))),
        (
            Row(messages=_talk("a", "b", "c"), chosen="x", rejected="y"),
            Row(messages=_talk("a", "b", "C"), chosen="y", rejected="x"),
        ),
        (Row(prompt="a", chosen="x", rejected="y"), Row(prompt="A", chosen="y", rejected="x")),
    ],
)
def test_what_is_read_makes_two_rows_one(pair: tuple[Row, Row]) -> None:
    other = Row(prompt="another", completion="x")
    train, _, test = split([*pair, other], 1, 0, seed=0)
    assert (len(train), len(test)) in [(1, 1), (2, 1)]
    assert not ({*map(id, pair)} & {*map(id, train)} and {*map(id, pair)} & {*map(id, test)})


@pytest.mark.parametrize(
    "pair",
    [
        (Row(messages=_talk("a", "b", "c", "d")), Row(messages=_talk("a", "x", "c", "d"))),
        (Row(messages=_talk("a", "b", "c", "d")), Row(messages=_talk("a", "b"))),
        (
            Row(messages=_talk("a", "b", "c"), chosen="x", rejected="y"),
            Row(messages=_talk("a", "b", "d"), chosen="x", rejected="y"),
        ),
        (Row(chosen="x", rejected="y"), Row(chosen="y", rejected="x")),
    ],
)
def test_other_words_before_the_answer_make_two_rows(pair: tuple[Row, Row]) -> None:
    assert [len(part) for part in split(pair, 1, 0, seed=0)] == [1, 0, 1]


def test_rows_without_a_prompt_are_told_apart_by_their_completion() -> None:
    rows = [Row(completion="a"), Row(completion="b")]
    assert [len(part) for part in split(rows, 1, 0, seed=0)] == [1, 0, 1]


@pytest.mark.parametrize(("test", "validation"), [(2, 1), (0.9, 0.9), (0, 3)])
def test_too_few_rows(test: int | float, validation: int | float) -> None:
    rows = [Row(text="a"), Row(text="b"), Row(text="c"), Row(text="A")]
    with pytest.raises(
        UserError, match=r"hold out \d rows, but there are only 3 distinct rows \(of 4"
    ):
        split(rows, test, validation, seed=0)


@pytest.mark.parametrize("size", [-1, 1.0, 1.5, -0.1, float("nan")])
def test_sizes_out_of_range(size: int | float) -> None:
    with pytest.raises(UserError, match=r"validation is .*; write a share below 1, or a whole"):
        split([Row(text="a")], 0, size, seed=0)


def test_hold_out_keeps_order_and_drops_repetitions() -> None:
    rows = _repeating()
    kept, held = hold_out(rows, 0.25, RoundContext(1, client="a"))
    assert len(held) == 15 == len(_folded(held))
    assert not _folded(kept) & _folded(held)
    assert len(_folded(kept)) == 45
    assert [row for row in rows if row in kept] == kept
    assert hold_out(rows, 0.25, RoundContext(1, client="b"))[1] != held


@pytest.mark.parametrize(
    ("count", "share", "sizes"),
    [(1, 0.5, (1, 0)), (2, 0.99, (1, 1)), (3, 0.01, (2, 1)), (5, 0, (5, 0)), (0, 0.5, (0, 0))],
)
def test_hold_out_keeps_at_least_one(count: int, share: float, sizes: tuple[int, int]) -> None:
    rows = [Row(text=f"t{i}") for i in range(count)]
    kept, held = hold_out(rows, share, RoundContext(0))
    assert (len(kept), len(held)) == sizes


def test_hold_out_refuses_a_share_out_of_range() -> None:
    with pytest.raises(UserError, match=r"is 1.5; write 0 or more, below 1"):
        hold_out([Row(text="a")], 1.5, RoundContext(0))


def test_answers_with_all_verdicts_are_held_out() -> None:
    rows = [
        Row(prompt=f"prompt {number}", completion=f"answer {verdict}", verdict=verdict)
        for number in range(60)
        for verdict in ("true", "false")
    ]
    train, validation, test = split(rows, 20, 20, seed=0)
    for held in (validation, test):
        assert len(held) == 20 == len({row.prompt for row in held})
        assert 4 < sum(row.verdict == "true" for row in held) < 16
    assert len(train) == 2 * 20
    _, own = hold_out(train, 0.5, RoundContext(0))
    assert {row.verdict for row in own} == {"true", "false"}
    assert split(rows, 20, 20, seed=0)[2] == test
