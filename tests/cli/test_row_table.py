"""The drawing of who holds which rows: true to the numbers, and it fits on a screen."""

import io
import random
from itertools import product

import pytest
from rich.console import Console

from hanse.cli.row_table import EIGHTHS, HEIGHTS, picture, skew
from hanse.journal.records import ClientRowCounts, DivisionRecord


def _table(rows: dict[str, dict[str, int]], labels: list[str] | None = None) -> DivisionRecord:
    held = {name: ClientRowCounts(train, 7) for name, train in rows.items()}
    known = (
        labels if labels is not None else sorted({key for train in rows.values() for key in train})
    )
    return DivisionRecord(tuple(known), held, validation=11, test=13)


def _drawn(table: DivisionRecord, width: int = 80) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, markup=False, highlight=False)
    console.print(picture(table, width))
    return file.getvalue().splitlines()


def _eighths(text: str) -> int:
    """How long a bar is, in eighths of a character."""
    return sum(EIGHTHS.index(character) for character in text)


def test_bars_are_as_long_as_the_numbers_say() -> None:
    lines = _drawn(_table({"a": {"bad": 1600, "good": 1}, "b": {"bad": 800, "good": 450}}))
    assert lines[0].split() == ["rows", "held", "bad", "good"]
    found = [line.split() for line in lines[1:3]]
    assert [row[:3] for row in found] == [["a", "1,601", "7"], ["b", "1,250", "7"]]
    assert [row[4::2] for row in found] == [["1,600", "1"], ["800", "450"]]
    whole = _eighths(found[0][3])
    assert [_eighths(row[i]) for row in found for i in (3, 5)] == [
        whole,
        1,  # never nothing for something
        whole / 2,
        -(-whole * 450 // 1600),
    ]


def test_nothing_is_drawn_for_nothing() -> None:
    lines = _drawn(_table({"a": {"bad": 5}, "b": {"good": 5}}))
    assert lines[1].split()[-1] == "0"
    assert _eighths(lines[1].split()[3]) == _eighths(lines[2].split()[4]) > 0


def test_many_labels_have_one_character_each() -> None:
    labels = [f"topic {number}" for number in range(20)]
    lines = _drawn(_table({"a": {label: at for at, label in enumerate(labels)}, "b": {}}, labels))
    assert lines[0].split()[2:] == list("abcdefghijklmnopqrst")
    heights = [HEIGHTS.index(cell) for cell in lines[1].split()[3:]]
    assert heights == [-(-8 * at // 19) for at in range(20)]
    assert lines[2].split()[3:] == ["·"] * 20
    key = " ".join(lines)
    assert "█ 19 rows" in key
    assert all(f"{letter} {label}" in key for letter, label in zip("abcdef", labels, strict=False))
    assert any("t topic 19" in line for line in lines), "no letter is parted from its label"


def test_the_rarest_of_very_many_labels_are_one() -> None:
    counts = {f"l{number}": number + 1 for number in range(40)}
    lines = _drawn(_table({"a": counts}))
    others = sum(range(1, 16))  # the 25 most frequent have a column
    assert "z others" in " ".join(lines) and "l14" not in " ".join(lines)
    assert f"█ {others:,} rows" in " ".join(lines)


def test_of_many_clients_the_largest_and_the_smallest_are_shown() -> None:
    sizes = list(range(1, 51))
    random.Random(0).shuffle(sizes)
    lines = _drawn(_table({f"silo-{size:02}": {"bad": size, "good": size} for size in sizes}))
    named = [line.split()[0] for line in lines if line.startswith("silo-")]
    large = [f"silo-{size:02}" for size in range(50, 40, -1)]
    assert named == [*large, *(f"silo-{size:02}" for size in range(5, 0, -1))]
    assert lines[11].split() == ["35", "more"]
    assert "50 clients train on 2 to 100 rows, 51 in the median" in " ".join(lines)


def test_rows_without_labels_have_one_bar() -> None:
    lines = _drawn(_table({"a": {"rows": 40}, "b": {"rows": 20}}, labels=[]))
    assert lines[0].split() == ["held", "rows"]
    assert [line.split()[0::3] for line in lines[1:3]] == [["a", "40"], ["b", "20"]]
    assert "mixture" not in " ".join(lines)
    equal = " ".join(_drawn(_table({"a": {"x": 40}, "b": {"x": 40}})))
    assert "2 clients train on 40 rows each; 11 rows are held out for validation, 13 for" in equal
    assert "1 client trains on 40 rows;" in " ".join(_drawn(_table({"a": {"x": 40}})))


def test_labels_are_no_markup() -> None:
    assert "[/good]" in _drawn(_table({"a": {"[/good]": 3, "[red]": 2}}))[0]


@pytest.mark.parametrize(
    ("clients", "labels", "width"),
    [*product((1, 4, 20, 50, 300), (0, 1, 2, 5, 20, 90), (60, 80, 200))],
)
def test_it_fits_on_a_screen(clients: int, labels: int, width: int) -> None:
    draw = random.Random(clients * labels)
    known = [f"{'long ' * draw.randint(0, 9)}label {number}" for number in range(labels)]
    rows = {
        f"{'hospital-' * (number % 4)}{number}": {
            label: draw.randint(0, 10 ** draw.randint(0, 5)) for label in known or ["rows"]
        }
        for number in range(clients)
    }
    lines = _drawn(_table(rows, known), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line and line.rstrip().endswith("…") for line in lines[1:3])
    assert len(lines) <= 40


def test_skew_is_the_share_of_rows_in_the_way_of_equal_mixtures() -> None:
    assert skew(_table({"a": {"x": 3, "y": 6}, "b": {"x": 1, "y": 2}})) == pytest.approx(0)
    for count in (2, 5):
        apart = _table({f"c{number}": {f"l{number}": 10} for number in range(count)})
        assert skew(apart) == pytest.approx(1 - 1 / count)
    # For mixtures of a half each, 5 of a's 30 rows and 5 of b's 10 would need another label.
    uneven = _table({"a": {"x": 10, "y": 20}, "b": {"x": 10}})
    assert skew(uneven) == pytest.approx(10 / 40)
