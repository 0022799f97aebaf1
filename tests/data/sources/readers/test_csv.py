"""Tables are read whatever separates their cells, and their faults named by line."""

import csv
from typing import Any

import pytest

from hanse.data.sources.readers.csv import records
from hanse.errors import UserError


def _read(text: str) -> list[tuple[str, dict[str, Any]]]:
    return [(place, dict(record)) for place, record in records(text, "f")]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header(mark: str) -> None:
    text = f'text{mark}"a;b, c|d"{mark}label\n"x{mark} ""y"""{mark}{mark}1\n'
    found = _read(text)
    assert found == [("f:2", {"text": f'x{mark} "y"', "a;b, c|d": "", "label": "1"})]


def test_a_table_of_one_column() -> None:
    assert _read("text\nno comma; here\n") == [("f:2", {"text": "no comma; here"})]


def test_blank_lines_line_breaks_in_cells_and_columns_without_name() -> None:
    text = '\n,text,label,\n\n0,"a\n\nb",1,\n , , , \n1,c,0,\n'
    assert _read(text) == [
        ("f:4", {"text": "a\n\nb", "label": "1"}),
        ("f:8", {"text": "c", "label": "0"}),
    ]


def test_the_line_that_tells_excel_the_separator() -> None:
    assert _read("sep=;\ntext;a,b,c\nx;y\n") == [("f:3", {"text": "x", "a,b,c": "y"})]


def test_cells_may_be_long_and_the_limit_of_the_process_stays() -> None:
    csv.field_size_limit(131_072)
    assert len(_read("text\n" + "a" * 300_000)[0][1]["text"]) == 300_000
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("text,label\na,1\nb,0,2\n", "f:3 has 3 columns, but the header has 2; put quotes around"),
        ('text,label\n"a\nb",1\nc\n', "f:4 has 1 columns, but the header has 2"),
        ("text;a\nx;y;z\n", "cells that hold ';' or line breaks"),
        ("text,text\na,1\n", "f:1: two columns have the same name, 'text'; rename one"),
        ('text\nfine\n"open\nfor\never\n', "f:3 is not valid CSV: .*; check the quotes from there"),
        ('text,b\n"x" y,1\n', "f:2 is not valid CSV"),
        ('x,"a\nb"\n1,2\n', "f:1 should name the columns, but holds the text .*; put a line"),
        ("a" * 101 + "\nb\n", "f:1 should name the columns, but holds the text .*; put a line"),
    ],
)
def test_faults_are_named_with_their_line(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        _read(text)


@pytest.mark.parametrize("text", ["", "\n\n", "text,label\n"])
def test_a_table_without_rows(text: str) -> None:
    assert _read(text) == []


def test_empty_cells_beyond_the_header_are_nothing() -> None:
    text = "text,label\na,1,\nb,0, ,\n"
    assert [record for _, record in records(text, "f")] == [
        {"text": "a", "label": "1"},
        {"text": "b", "label": "0"},
    ]
