"""Whatever happens to a data file, it ends in rows or in one sentence, never in another error."""

import io
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.data.formats.row import rows
from hanse.data.sources import files
from hanse.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TALK = [{"role": "user", "content": "Wie heißt „das“?"}, {"role": "assistant", "content": "so 👍"}]
RECORDS: list[dict[str, Any]] = [
    {"messages": TALK, "topic": "x"},
    {"text": 'grün, "rot"; und\nblau', "label": 1, "source": "a"},
    {"instruction": "add", "input": "", "output": "2", "history": [["a", "b"]], "system": None},
    {"prompt": "p", "chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "?"}]},
]


def _table(mark: str) -> str:
    lines = [f"text{mark}label", *(f'"so{mark} ""{n}""\nö"{mark}{n}' for n in range(4)), ""]
    return "\r\n".join(lines)


def _parquet(record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([record] * 3), out)
    return out.getvalue()


WHOLE: dict[str, list[bytes]] = {
    ".jsonl": [
        "".join(json.dumps(record, ensure_ascii=odd) + "\n" for _ in range(3)).encode()
        for record, odd in zip(RECORDS, (True, False) * 2, strict=True)
    ],
    ".json": [
        json.dumps([record] * 3, indent=indent, ensure_ascii=False).encode()
        for record, indent in zip(RECORDS, (None, 1) * 2, strict=True)
    ],
    ".csv": [_table(mark).encode(coding) for mark, coding in ((",", "utf-8"), (";", "cp1252"))],
    ".tsv": [_table("\t").encode(coding) for coding in ("utf-8-sig", "utf-16")],
    ".txt": ["ein Text\rmit Zeilen".encode("utf-32"), "ein Öl".encode()],
    ".parquet": [_parquet(record) for record in RECORDS],
}
ODD = (
    b"\0",
    b"\xff",
    b'"',
    b"\xc3",
    b"{",
    b"[" * 5000,
    b"\\ud83d",
    b"\r",
    b",",
    b"9" * 5000,
    b"\n",
)
SWAPS = (b'"', b":", b"text", b"role", b"user", b"null", b"1", b"[", b"}", b"PAR1", b"")


def _flipped(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content)) for _ in range(2))
    return draw.choice([content[:end], content[start:], content[:start] + content[end:]])


def _filled(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + draw.choice(ODD) + content[at:]


def _swapped(content: bytes, draw: random.Random) -> bytes:
    return content.replace(draw.choice(SWAPS[:-2]), draw.choice(SWAPS), draw.randint(1, 3))


def _twice(content: bytes, draw: random.Random) -> bytes:
    return content + content[draw.randrange(len(content)) :]


FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flipped, _cut, _filled, _swapped, _twice),
)


@pytest.mark.parametrize("ending", WHOLE)
def test_whole_files_are_read(tmp_path: Path, ending: str) -> None:
    for content in WHOLE[ending]:
        (tmp_path / f"d{ending}").write_bytes(content)
        assert rows(files.records(tmp_path / f"d{ending}"), "d", {})


@pytest.mark.parametrize("ending", WHOLE)
def test_damaged_files_end_in_rows_or_in_one_sentence(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    draw = random.Random(ending)
    path = tmp_path / f"d{ending}"
    refused = []
    for number in range(200):
        content = draw.choice(WHOLE[ending])
        for _ in range(draw.randint(1, 3)):
            content = draw.choice(FAULTS)(content, draw) or b" "
        path.write_bytes(content)
        try:
            found = rows(files.records(path), "d", {"text": "text"} if number % 5 == 0 else {})
        except UserError as error:
            refused.append(str(error))
        else:
            assert found and all(row.place for row in found)
    assert refused  # else nothing was damaged
    assert all("\n" not in sentence and len(sentence) < 1000 for sentence in refused)
