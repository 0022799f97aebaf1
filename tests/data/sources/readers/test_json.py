"""JSON is read as lines or as a document, whichever the file holds; faults have their place."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hanse.data.formats.row import Record
from hanse.data.sources.readers.json import lines, records
from hanse.errors import UserError

pd = pytest.importorskip("pandas")

Reader = Callable[[str, str], Iterator[Record]]
ROWS = [{"text": "a"}, {"text": "b"}]


def _read(reader: Reader, text: str) -> list[tuple[str, Any]]:
    return [(place, dict(record)) for place, record in reader(text, "f")]


@pytest.mark.parametrize("reader", [lines, records])
def test_one_object_a_line(reader: Reader) -> None:
    text = '{"text": "a\u2028"}\n\n{"text": "b"}\n'
    assert _read(reader, text) == [("f:1", {"text": "a\u2028"}), ("f:3", {"text": "b"})]


@pytest.mark.parametrize("reader", [lines, records])
def test_an_array(reader: Reader) -> None:
    text = '\n[\n  {"text": "a"},\n  {"text": "b"}\n]\n'
    assert _read(reader, text) == [("f: entry 1", ROWS[0]), ("f: entry 2", ROWS[1])]


def test_the_one_array_that_an_object_holds() -> None:
    text = '{"version": 1, "tags": ["x"], "data": [{"text": "a"}, {"text": "b"}]}'
    assert [record for _, record in _read(records, text)] == ROWS


@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_an_object_that_is_a_conversation_is_one_record(keys: tuple[str, str]) -> None:
    who, what = keys
    text = f'{{"messages": [{{"{who}": "user", "{what}": "a"}}]}}'
    ((place, record),) = _read(records, text)
    assert (place, list(record)) == ("f: entry 1", ["messages"])


def test_an_object_alone_is_one_record() -> None:
    assert _read(records, '{\n"text": "a"}') == [("f: entry 1", {"text": "a"})]


@pytest.mark.parametrize("reader", [lines, records])
@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_nothing(reader: Reader, text: str) -> None:
    assert _read(reader, text) == []


@pytest.mark.parametrize(
    ("reader", "text", "sentence"),
    [
        (
            lines,
            '{"text": "a"}\n{"text": \n',
            r"f:2 is not valid JSON at character \d+: .* in each line",
        ),
        (records, '{"text": "a"}\n{"text": \n', r"f:2 is not valid JSON at character \d+"),
        (
            records,
            '[{"text": "a"},\n {"text": ]',
            r"f:2 is not valid JSON at character 11: .*jsonl",
        ),
        (records, '[{"text": "a"}', "f:1 is not valid JSON at character 15"),
        (records, '[{"text": "a"}] x', "f:1 is not valid JSON at character 17: extra data"),
        (lines, '{"text": "a"}\n[1]', "f:2 holds a list, not an object; write JSON objects"),
        (records, '[{"text": "a"}, 3]', "f: entry 2 holds a number, not an object"),
        (records, '"text"', "f: entry 1 holds text, not an object"),
        (
            lines,
            '{"a": ' + "[" * 100_000,
            "f:1 cannot be read: it is nested too deeply; write flat objects",
        ),
        (lines, "[" * 100_000, "f cannot be read: it is nested too deeply"),
        (
            lines,
            '{"a": 1}\n{"a": ' + "9" * 5000 + "}",
            "f:2 cannot be read: it holds a number with too many digits",
        ),
        (
            lines,
            '{"a": 1}\n{"text": "a", "text": "b"}',
            "f:2 cannot be read: it has the key 'text' twice",
        ),
        (
            records,
            '[{"a": 1}, {"text": "a", "text": "b"}]',
            "f cannot be read: it has the key 'text' twice",
        ),
        (
            records,
            '{"north": [{"text": "a"}], "test": [{"text": "b"}]}',
            "f holds several arrays, 'north', 'test', and only one can be read",
        ),
    ],
)
def test_faults_are_named_with_their_place(reader: Reader, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        _read(reader, text)


TABLE = [{"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": "c", "label": 0}]


@pytest.mark.parametrize(
    "orient", ["columns", "records", "index", "split", "table", "list", "data", "named", "viewer"]
)
def test_tables_of_pandas_and_datasets(orient: str) -> None:
    frame = pd.DataFrame(TABLE)
    texts = {
        "list": json.dumps({"text": ["a", "b", "c"], "label": [0, 1, 0]}),  # Dataset.to_dict
        "data": json.dumps({"version": "1", "data": TABLE}),
        "named": frame.set_index(pd.Index(["x", "y", "z"])).to_json(orient="index"),
        "viewer": json.dumps({"rows": [{"row_idx": n, "row": r} for n, r in enumerate(TABLE)]}),
    }
    text = texts.get(orient) or frame.to_json(orient=orient)
    found = [record for _, record in _read(records, text)]
    assert [{key: record[key] for key in ("text", "label")} for record in found] == TABLE
    assert [record for _, record in _read(records, json.dumps(json.loads(text), indent=1))] == found


def test_columns_may_hold_lists() -> None:
    talks = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    table = json.dumps({"messages": talks, "id": [1, 2]})
    assert [record["messages"] for _, record in _read(records, table)] == talks
    words = {"tokens": [["a", "b"], ["c"]], "ner_tags": [["X", "Y"], ["X"]]}
    assert [record["tokens"] for _, record in _read(records, json.dumps(words))] == words["tokens"]
    table = pd.DataFrame({"messages": talks}).to_json()
    assert [record["messages"] for _, record in _read(records, table)] == talks


@pytest.mark.parametrize(
    "value",
    [
        {"tokens": ["the", "film"], "ner_tags": ["AT", "NN"]},
        {"text": "a", "tags": ["x", "y"]},
        {"text": "a", "meta": {"0": "x"}},
        {"messages": [{"role": "user", "content": "a"}], "ids": [1]},
        {"words": ["a"], "tags": ["X", "Y"]},
    ],
)
@pytest.mark.parametrize("reader", [lines, records])
def test_one_record_is_no_table(reader: Reader, value: dict[str, Any]) -> None:
    for indent in (None, 2):
        found = _read(reader, json.dumps(value, indent=indent))
        assert [record for _, record in found] == [value]


PAIR = [{"text": "a, }\n{"}, {"text": "b"}]
VALUES = {
    "one line": " ".join(map(json.dumps, PAIR)),
    "glued": "".join(map(json.dumps, PAIR)),
    "indented": "\n".join(json.dumps(record, indent=2) for record in PAIR),
    "indented with commas": ",\n".join(json.dumps(record, indent=2) for record in PAIR),
    "lines with commas": ",\n".join(map(json.dumps, PAIR)),
    "a comma at the end": "".join(f"{json.dumps(record)},\n" for record in PAIR),
    "wrapped": json.dumps({"data": {"rows": PAIR}}, indent=1),
}


@pytest.mark.parametrize("reader", [lines, records])
@pytest.mark.parametrize("form", VALUES)
def test_objects_that_are_not_one_in_each_line(reader: Reader, form: str) -> None:
    assert [record for _, record in _read(reader, VALUES[form])] == PAIR


@pytest.mark.parametrize("wrap", ["{}", '{{"data": {}}}'])
def test_arrays_named_after_splits(wrap: str) -> None:
    text = wrap.format(json.dumps({"train": PAIR, "test": PAIR[:1], "dev": PAIR[1:]}))
    found = [(record["split"], record["text"]) for _, record in _read(records, text)]
    a, b = (record["text"] for record in PAIR)
    assert found == [("train", a), ("train", b), ("test", a), ("dev", b)]
