"""Files are read by their ending, folders as all the data files in them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.data.formats.row import Row, rows
from hanse.data.sources import files
from hanse.errors import UserError


def _load(path: Path, **columns: str) -> list[Row]:
    return rows(files.records(path), str(path), columns)


def _write(folder: Path, contents: dict[str, str | bytes]) -> Path:
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", '{"text": "a"}\n{"text": "b"}'),
        ("d.NDJSON", '{"text": "a"}\n{"text": "b"}'),
        ("d.json", '[{"text": "a"}, {"text": "b"}]'),
        ("d.csv", "text\na\nb\n"),
        ("d.tsv", "text\tid\na\t1\nb\t2\n"),
    ],
)
def test_each_kind_of_file(tmp_path: Path, name: str, content: str) -> None:
    assert [row.text for row in _load(_write(tmp_path, {name: content}) / name)] == ["a", "b"]


def test_a_text_file_is_one_row(tmp_path: Path) -> None:
    (row,) = _load(_write(tmp_path, {"d.txt": "a\r\nb\n"}) / "d.txt")
    assert (row.text, row.fields, row.place) == ("a\nb", {}, str(tmp_path / "d.txt"))


def test_a_folder_is_all_the_data_files_in_it(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        {
            "b.jsonl": '{"text": "b"}',
            "a.csv": "text,file\na,mine\n",
            "note.md": "left out",
            ".hidden.csv": "left out",
            ".git/x.csv": "left out",
            "__MACOSX/x.csv": "left out",
        },
    )
    found = _load(folder)
    assert [(row.text, dict(row.fields)) for row in found] == [
        ("a", {"file": "mine"}),  # the file's own column stays
        ("b", {"file": "b"}),
    ]
    assert found[0].place == f"{folder / 'a.csv'}:2"


def test_folders_below_are_a_column_and_may_be_the_label(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {"pos/1.txt": "good", "neg/2.txt": "bad", "pos/old/3.txt": "ok"}
    found = _load(_write(tmp_path, texts), label="folder")
    assert [(row.text, row.label, row.fields["file"]) for row in found] == [
        ("bad", "neg", "2"),
        ("good", "pos", "1"),
        ("ok", "pos/old", "3"),
    ]
    assert {row.kind for row in _load(tmp_path)} == {"text"}


def test_files_at_the_top_have_a_folder_too_if_others_do(tmp_path: Path) -> None:
    _write(tmp_path, {"a.txt": "a", "b/b.txt": "b"})
    assert [row.fields["folder"] for row in _load(tmp_path)] == [".", "b"]


def test_a_folder_of_two_kinds_names_both_files(tmp_path: Path) -> None:
    _write(tmp_path, {"a.jsonl": '{"text": "a"}', "b.csv": "text,label\nb,1\n"})
    with pytest.raises(UserError, match=r"b.csv:2 has text \+ label, but .*a.jsonl:1 has text; "):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({}, "in it have files that end in .jsonl, .ndjson, .json, .csv, .tsv, .txt, .parquet"),
        ({"a.xlsx": "x"}, "holds no data"),
        ({"a.csv": "text\nx\n", "b.csv": "text\n"}, "b.csv holds no rows; take it out of "),
        ({"a.csv": "text\nx\n", "b.csv": ""}, "b.csv holds no rows; take it out of "),
        ({"a.txt": "a", "b.txt": " \n"}, "b.txt: text is empty"),
        ({"a.jsonl": '{"text": "a"}', "b.jsonl": "{"}, "b.jsonl:1 is not valid JSON"),
    ],
)
def test_faults_of_a_folder(tmp_path: Path, contents: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        _load(_write(tmp_path, dict(contents)))


@pytest.mark.parametrize(("name", "came"), [("d.xlsx", "'.xlsx'"), ("d", "'file without an end")])
def test_an_unknown_ending(tmp_path: Path, name: str, came: str) -> None:
    with pytest.raises(UserError, match=f"is a {came}.*, but data are read from .jsonl, .*convert"):
        _load(_write(tmp_path, {name: "x"}) / name)


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet"])
def test_a_file_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, who reads everything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=f"{name} cannot be read: permission denied; check its"):
        _load(_write(tmp_path, {name: "x"}) / name)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(folder: Path, onerror: Callable[[OSError], None]) -> Any:
        onerror(PermissionError(13, "Permission denied", str(folder / "closed")))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="closed cannot be read: permission denied"):
        _load(tmp_path)


def test_what_is_not_utf8_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, {"one.csv": "text\na\nGröße\n".encode("cp1252")})
    assert [row.text for row in _load(tmp_path / "one.csv")] == ["a", "Größe"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'one.csv'} is not UTF-8 (line 3); by its letters it is read as "
        "Windows-1252; if they look wrong, name another one in data.encoding."
    ]
    caplog.clear()
    _write(tmp_path, {"two.csv": "text\nÜbel\n".encode("latin-1"), "three.csv": "text\nÖl\n"})
    assert {row.text for row in _load(tmp_path)} == {"a", "Größe", "Übel", "Öl"}
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.endswith("in data.encoding; the same holds for 1 more files beside it.")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'd.parquet .* run pip install "hanse\[data\]", or conv'):
        _load(_write(tmp_path, {"d.parquet": "x"}) / "d.parquet")


def test_files_in_other_encodings(tmp_path: Path) -> None:
    texts = {"a.csv": ("gbk", "我们"), "b.csv": ("cp1251", "как дела"), "c.csv": ("gbk", "你的")}
    _write(tmp_path, {name: f"text\n{text}\n".encode(code) for name, (code, text) in texts.items()})
    remarks: list[str] = []
    found = files.records(tmp_path, options=files.Options(remark=remarks.append))
    assert [record["text"] for _, record in found] == ["我们", "как дела", "你的"]
    first, second = remarks
    assert "a.csv is not UTF-8 (line 2); by its letters it is read as gb18030; if" in first
    assert first.endswith("; the same holds for 1 more files beside it.")
    assert "read as cp1251" in second
    remarks.clear()
    named = files.Options(remark=remarks.append, encoding="gbk")
    assert [r["text"] for _, r in files.records(tmp_path / "c.csv", options=named)] == ["你的"]
    assert not remarks
