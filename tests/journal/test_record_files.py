"""Records of a run folder: what is written is read back, as are the lines of older versions."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hanse.journal import record_files
from hanse.journal.record_files import RecordError, line, parse, read_lines, readable_lines
from hanse.journal.records import (
    ClientRecord,
    DivisionRecord,
    EnvironmentRecord,
    Evaluation,
    GeneratedSample,
    RefusalRecord,
    RoundRecord,
    Traffic,
)

# Lines as earlier versions wrote them.
OLD_ROUND = (
    b'{"round": 2, "clients": ["silo-1", "silo-3"], "weight": 48.0, "train": {"loss": 0.75, '
    b'"steps": 3.0}, "validation": {"accuracy": 0.5, "loss": NaN}, "bytes": {"down": 5312, '
    b'"up": 5280}, "seconds": {"data": 0.01, "serialization": 0.2, "journal": 0.003}, '
    b'"tokens_per_second": 1200.5, "peak_memory": 812345344, "time": 1790000000.25}\n'
)
OLD_REPLY = (
    b'{"round": 2, "client": "silo-1", "kind": "train", "down": 2656, "up": 2640, "steps": 3.0, '
    b'"loss": 0.75, "forward_seconds": 0.5, "weight": 24.0}\n'
)
OLD_LATE = (
    b'{"round": 3, "client": "silo-2", "kind": "train", "down": 0, "up": 0, "late": 2, '
    b'"unused": 2640}\n'
)


def test_a_round_of_an_older_version_is_read() -> None:
    record = parse(OLD_ROUND, RoundRecord)
    assert (record.round, record.clients, record.weight) == (2, ("silo-1", "silo-3"), 48.0)
    assert record.train == {"loss": 0.75, "steps": 3.0}
    assert record.validation["accuracy"] == 0.5 and math.isnan(record.validation["loss"])
    assert (record.test, record.client_test, record.gpu_memory) == ({}, {}, None)
    assert record.bytes == Traffic(5312, 5280)
    assert record.seconds == {"data": 0.01, "serialization": 0.2, "journal": 0.003}
    assert (record.tokens_per_second, record.peak_memory) == (1200.5, 812345344)
    assert record.time == 1790000000.25


def test_replies_of_an_older_version_are_read() -> None:
    reply = parse(OLD_REPLY, ClientRecord)
    assert (reply.round, reply.client, reply.kind) == (2, "silo-1", "train")
    assert (reply.down, reply.up, reply.loss, reply.weight) == (2656, 2640, 0.75, 24.0)
    assert reply.numbers["forward_seconds"] == 0.5 and reply.late is None
    late = parse(OLD_LATE, ClientRecord)
    assert (late.late, late.unused, late.numbers) == (2, 2640, {})


@pytest.mark.parametrize("text", [OLD_ROUND, OLD_REPLY, OLD_LATE])
def test_a_line_keeps_its_keys_and_values(text: bytes) -> None:
    kind: Any = RoundRecord if text is OLD_ROUND else ClientRecord
    written = line(parse(text, kind))
    assert _plain(written) == _plain(text)


def _plain(text: bytes) -> dict[str, Any]:
    """The keys and values of a line, NaN as text, which equals itself."""
    return json.loads(text, parse_constant=str)


@pytest.mark.parametrize(
    "record",
    [
        DivisionRecord((), {}),
        EnvironmentRecord(threads=2, data="ab", precision={"m": {"bf16": True}}),
        Evaluation(2, {"chrf": 0.5}, (1.0, 0.0), (GeneratedSample("2 + 2?", "4", "\ud800ü"),)),
        RefusalRecord(1.5, "run", "refused", "it asks for ε ≤ 3"),
    ],
)
def test_a_file_that_is_written_is_read_back(tmp_path: Path, record: Any) -> None:
    record_files.write(tmp_path / "one.json", record)
    assert record_files.read(tmp_path / "one.json", type(record)) == record


@pytest.mark.parametrize(
    "record",
    [
        ClientRecord(1, "a", "train", 3, 4, {"loss": 0.5}, "it is full of \ud800ü"),
        RoundRecord(round=0, bytes=Traffic(0, 0), seconds={}, gpu_use=0.5),
        RefusalRecord(1.5, "run", "refused", "it asks for ε ≤ 3"),
    ],
)
def test_lines_that_are_written_are_read_back(tmp_path: Path, record: Any) -> None:
    (tmp_path / "some.jsonl").write_bytes(line(record) * 2)
    assert read_lines(tmp_path / "some.jsonl", type(record)) == [record, record]


def test_a_clients_numbers_replace_no_other_key() -> None:
    numbers = {"loss": 0.5, "round": 9.0, "client": 1.0, "late": 3.0, "error": 1.0, "numbers": 2.0}
    written = parse(line(ClientRecord(1, "a", "train", numbers=numbers)), ClientRecord)
    assert written == ClientRecord(1, "a", "train", numbers={"loss": 0.5, "numbers": 2.0})


def test_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    later = OLD_ROUND.replace(b'"round": 2', b'"round": 2, "epsilon": {"spent": 1}')
    (tmp_path / "metrics.jsonl").write_bytes(later)
    assert read_lines(tmp_path / "metrics.jsonl", RoundRecord)[0].round == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OLD_ROUND.replace(b'"bytes"', b'"sizes"'), "the key bytes is missing"),
        (OLD_ROUND.replace(b'"down": 5312, ', b""), r"the key bytes\.down is missing"),
        (OLD_ROUND.replace(b'"up": 5280', b'"up": -1'), r"bytes\.up is -1, and input should be"),
        (OLD_ROUND.replace(b'"round": 2', b'"round": 2, "round": 3'), "the key 'round' twice"),
        (b"[]\n", "it holds a list, not an object"),
        (b"{\n", "expecting property name"),
        (b"[" * 9999 + b"\n", "nested too deeply"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: bytes, reason: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(OLD_ROUND + text + OLD_ROUND)
    with pytest.raises(RecordError, match=rf"metrics\.jsonl:2 cannot be read: .*{reason}"):
        read_lines(file, RoundRecord)
    records, damaged = readable_lines(file, RoundRecord)
    assert (len(records), damaged) == (2, 1)


def test_a_last_line_that_is_not_ended_is_still_being_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(OLD_ROUND + OLD_ROUND[:-20])
    assert len(read_lines(file, RoundRecord)) == 1
    records, damaged = readable_lines(file, RoundRecord)
    assert (len(records), damaged) == (1, 1)


def test_a_file_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl", RoundRecord) == []
    assert record_files.read(tmp_path / "none.json", Evaluation) is None
    (tmp_path / "other.json").write_text('{"round": 1}')
    with pytest.raises(RecordError, match=r"other\.json cannot be read: the key metrics is miss"):
        record_files.read(tmp_path / "other.json", Evaluation)
