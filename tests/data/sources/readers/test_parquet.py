"""Parquet files are read row by row, with plain values."""

import io
from typing import Any

import pytest

from hanse.data.formats.row import rows
from hanse.data.sources.readers.parquet import records
from hanse.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _file(table: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2)
    return out.getvalue()


def test_rows_of_every_group_with_their_numbers() -> None:
    table = pa.table(
        {"text": ["a", "b", "c"], "label": [1.0, 0.0, 1.0], "old": [True, None, False]}
    )
    found = rows(records(_file(table), "f"), "f", {})
    assert [(row.text, row.label) for row in found] == [("a", "1"), ("b", "0"), ("c", "1")]
    assert [row.fields.get("old") for row in found] == ["true", None, "false"]
    assert [row.place for row in found] == ["f: row 1", "f: row 2", "f: row 3"]


def test_nested_and_categorical_columns() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    table = pa.table({"messages": [talk, talk], "topic": pa.array(["x", "y"]).dictionary_encode()})
    found = rows(records(_file(table), "f"), "f", {})
    assert [dict(message) for message in found[0].messages] == talk
    assert [row.fields["topic"] for row in found] == ["x", "y"]


def test_a_table_without_rows() -> None:
    table = pa.table({"text": pa.array([], pa.string())})
    assert list(records(_file(table), "f")) == []


def test_faults_are_named_with_their_place() -> None:
    with pytest.raises(UserError, match=r"f cannot be read as parquet: .*; write it again"):
        list(records(b"text\na\n", "f"))
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(UserError, match="f: two columns have the same name, 'text'"):
        list(records(_file(twice), "f"))
    with pytest.raises(UserError, match="f: row 2: text is null"):
        rows(records(_file(pa.table({"text": ["a", None]})), "f"), "f", {})
    # A column of bytes that calls itself text.
    raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    with pytest.raises(UserError, match="f cannot be read as parquet: 'utf-8' codec"):
        list(records(_file(pa.table({"text": raw})), "f"))
