"""All rows that cannot be read are counted, the first are named, and they can be left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from hanse.data.formats.row import Row
from hanse.data.sources import corpora
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.schema import Experiment
from hanse.planning.first_experiment.start import start

GOOD = [{"question": f"{n} + {n}?", "answer": 2 * n} for n in range(1, 31)]
NAN = float("nan")


def _lines(file: Path, records: list[Any]) -> str:
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    file.write_text("\n".join(lines))
    return str(file)


def _load(path: str, skip: bool = True) -> tuple[list[Row], list[str]]:
    remarks: list[str] = []
    return corpora.load(path, remark=remarks.append, skip_invalid=skip), remarks


FAULTS: list[tuple[Any, str]] = [
    ({"question": "a", "answer": None}, "answer is null"),
    ({"question": "a", "answer": " "}, "answer is empty"),
    ({"question": "a", "answer": NAN}, "answer is empty"),
    ({"question": "a", "answer": {"text": "b"}}, "answer is an object"),
    ({"question": "a"}, "the columns 'question' fit no known format"),
    ({"question": "a", "answer": "\ud83d"}, "answer holds half of a surrogate pair, which is not"),
    ({"question": "a", "answer": "b", "system": ["x"]}, "system is a list"),
    ({"text": "a"}, "has text, but bad.jsonl:1 has instruction + output"),
    ('{"question": "a", "ans', "is not valid JSON at character 19: unterminated string"),
    ("[1, 2]", "holds a list, not an object"),
    ('{"question": "a", "question": "b"}', "cannot be read: it has the key 'question' twice"),
    ("null", "holds null, not an object"),
]


@pytest.mark.parametrize(("record", "reason"), FAULTS)
def test_a_row_that_cannot_be_read_is_named_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Any, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _lines(Path("bad.jsonl"), [*GOOD[:20], record, *GOOD[20:]])
    with pytest.raises(UserError) as refused:
        _load(path, skip=False)
    sentence = str(refused.value)
    assert sentence.startswith("bad.jsonl:21") and reason in sentence
    assert sentence.endswith("; data.skip_invalid: true goes on without this row.")
    rows, remarks = _load(path)
    assert [row.messages[1]["content"] for row in rows] == [str(2 * n) for n in range(1, 31)]
    [remark] = remarks
    assert remark.startswith(
        "1 of 31 rows of bad.jsonl is left out, since data.skip_invalid is true: bad.jsonl:21: "
    )
    assert reason in remark


def test_all_bad_rows_are_counted_and_ten_are_named_by_their_reasons(tmp_path: Path) -> None:
    bad = [{"question": "a", "answer": None if n % 2 else ""} for n in range(13)]
    path = _lines(tmp_path / "a.jsonl", [*GOOD, *bad, "{"])
    with pytest.raises(UserError) as refused:
        _load(path, skip=False)
    empty, null = (
        ", ".join(f"a.jsonl:{line}" for line in range(first, 41, 2)) for first in (31, 32)
    )
    # The reader meets the broken line last, since rows are made while lines are read.
    assert str(refused.value) == (
        f"14 of 44 rows of {path} cannot be read: {empty}: answer is empty; {null}: answer is "
        "null; and 4 more; correct them, or go on without them with data.skip_invalid: true."
    )
    rows, [remark] = _load(path)
    assert len(rows) == 30
    assert remark.startswith(f"14 of 44 rows of {path} are left out, since data.skip_invalid is")


def test_rows_of_a_table_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,stars\ngood,5\nbad, poor,1\nugly,\nfine,4\n")
    (tmp_path / "b.jsonl").write_text('{"review": "so", "stars": 3}\n{"review": "", "stars": 3}')
    sentence = (
        r"3 of 6 rows of .* cannot be read: a.csv:3: has 3 columns, but the header has 2; a.csv:4: "
        r"stars is empty; b.jsonl:2: review is empty; correct them, or"
    )
    with pytest.raises(UserError, match=sentence):
        _load(str(tmp_path), skip=False)
    rows, remarks = _load(str(tmp_path))
    assert [(row.text, row.label) for row in rows] == [("good", "5"), ("fine", "4"), ("so", "3")]
    assert len(remarks) == 1


def test_the_first_rows_may_be_the_bad_ones(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"text": "a"}, {"comment": None}, *GOOD])
    rows, [remark] = _load(path)
    assert len(rows) == 30 and {row.kind for row in rows} == {"messages"}
    assert "a.jsonl:1: has text, but" in remark and "a.jsonl:2: comment is null" in remark


def test_nothing_but_bad_rows_is_refused_in_any_case(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"question": "a", "answer": None}] * 5000)
    with pytest.raises(UserError, match=r"a.jsonl:1: answer is null; write some text there or"):
        _load(path)
    path = _lines(tmp_path / "a.jsonl", [{"question": "a", "answer": None}, "x", {"b": 1}])
    with pytest.raises(UserError, match=r"3 of 3 rows of .* cannot be read: .*; correct them\.$"):
        _load(path)


@pytest.mark.parametrize("broken", [0, 500, 998])
def test_reading_stops_at_a_thousand_bad_rows(tmp_path: Path, broken: int) -> None:
    bad = [{"question": "a", "answer": None if n % 2 else ""} for n in range(5000)]
    # The thousandth bad row may be one that the reader refuses.
    lines: list[Any] = [*bad[:broken], "x", "x", *bad[broken:]]
    with pytest.raises(
        UserError, match=r"^the first 1,00[01] rows of .* cannot be read: .*; and 9"
    ):
        _load(_lines(tmp_path / "a.jsonl", lines))


def test_an_experiment_goes_on_without_them_and_says_so(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"question": None, "answer": 1}, *GOOD])
    data = {"path": path, "skip_invalid": True}
    found = divide(Experiment.model_validate({"data": data, "num_clients": 2}))
    assert "1 of 31 rows" in found.remarks[0]
    public = {"data": {"path": _lines(tmp_path / "b.jsonl", GOOD), "public": path}}
    with pytest.raises(UserError, match=r"question is empty; .*data\.public\.skip_invalid: true"):
        divide(Experiment.model_validate({**public, "num_clients": 2}))


def test_init_names_its_option_and_writes_the_setting(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", ["{", {"question": "a", "answer": None}, *GOOD])
    with pytest.raises(UserError, match=r"2 of 32 rows .*`hanse init` takes that as --skip-inv"):
        start([path], 2, "smollm2-135m", tmp_path / "a.yaml", {})
    written = start([path], 2, "smollm2-135m", tmp_path / "a.yaml", {}, skip_invalid=True)
    assert "  skip_invalid: true" in written.file.read_text()
    [source] = written.sources.values()
    assert source.remarks[0].startswith("2 of 32 rows of")
    assert source.reading.columns == {"instruction": "question", "output": "answer"}
