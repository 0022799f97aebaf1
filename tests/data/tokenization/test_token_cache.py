"""Each row is tokenized once, and the examples are the same with and without what is kept."""

import ast
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import hanse
from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.packed import Examples
from hanse.data.tokenization import token_cache
from hanse.data.tokenization.token_cache import Rendering, Tokenized
from hanse.errors import UserError
from samples import reviews

WORDS = {"negative": "negative", "positive": "positive"}
SRC = Path(str(hanse.__file__)).parent.parent
# What rendering imports and no example depends on: errors, log lines, files.
OTHER = {
    *("errors", "registry", "atomic_files", "security/trusted_code"),
    *("observability/progress", "observability/steps", "tensors/json_text"),
}
KEPT = 20  # rows that are worth a file in these tests


def read(tokenized: Tokenized, rows: Sequence[Row]) -> Examples:
    """The examples of one list of rows."""
    [examples] = tokenized.examples([rows])
    return examples


@pytest.fixture
def rendering(tiny_llama: Path) -> Rendering:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    return Rendering(tokenizer, "label_words", WORDS, "Review: {text}\nSentiment:", 64)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were tokenized, call by call; few are enough for a file, and for a block."""
    calls: list[int] = []
    render = Rendering.render

    def counted(self: Rendering, rows: Sequence[Row]) -> list[Example]:
        calls.append(len(rows))
        return render(self, rows)

    monkeypatch.setattr(Rendering, "render", counted)
    monkeypatch.setattr(token_cache, "WORTH", KEPT)
    monkeypatch.setattr(token_cache, "BLOCK", 16)
    return calls


def rows(count: int, seed: int = 0) -> list[Row]:
    found = [Row(text=r["text"], label=r["label"]) for r in reviews(count, seed)]
    return [replace(row, place=f"reviews:{line}") for line, row in enumerate(found, 1)]


def test_they_are_what_the_rendering_makes(rendering: Rendering, tmp_path: Path) -> None:
    found = read(Tokenized(rendering, tmp_path), rows(50))
    assert list(found) == rendering.render(rows(50))
    assert not list(tmp_path.iterdir()), "few rows are made as fast as read"


def test_equal_rows_are_tokenized_once(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    reader = Tokenized(rendering, tmp_path)
    some = rows(10)
    first = read(reader, [*some[:6], some[2], some[0]])
    assert rendered == [6]
    assert (first[6], first[7]) == (first[2], first[0])
    again = read(reader, list(reversed(some)))
    assert rendered == [6, 4]
    assert list(again) == rendering.render(list(reversed(some)))
    assert list(first[:6]) == list(again)[:3:-1], "what was read before stays as it is"


def test_many_rows_are_tokenized_block_by_block(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    read(Tokenized(rendering, tmp_path), rows(40))
    assert rendered == [16, 16, 8]


def test_a_later_run_reads_them_in_whatever_order(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    home = tmp_path / "cache" / "tokens"
    first = read(Tokenized(rendering, home), rows(40))
    rendered.clear()
    later = read(Tokenized(replace(rendering), home), list(reversed(rows(40))))
    assert not rendered and home.stat().st_mode & 0o077 == 0, "others may not read them"
    assert list(later) == list(reversed(list(first)))


@pytest.mark.parametrize(
    "change",
    [
        {"example_kind": "tokens"},
        {"template": "{text} is"},
        {"max_length": 12},
        {"labels": {"negative": "bad", "positive": "good"}},
        {"labels": dict(reversed(WORDS.items()))},
    ],
)
def test_another_rendering_has_its_own(
    rendering: Rendering, tmp_path: Path, rendered: list[int], change: dict[str, Any]
) -> None:
    read(Tokenized(rendering, tmp_path), rows(30))
    rendered.clear()
    other = replace(rendering, **change)
    assert list(read(Tokenized(other, tmp_path), rows(30))) == other.render(rows(30))
    assert sum(rendered) == 60 and len(list(tmp_path.iterdir())) == 2


def test_another_tokenizer_has_its_own(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    digest = rendering.digest()
    rendering.tokenizer.backend_tokenizer.enable_truncation(3)
    assert rendering.digest() == digest, "what its last caller asked of it does not count"
    rendering.tokenizer.add_tokens(["film"])
    assert rendering.digest() != digest


def _imported(file: Path) -> Iterator[Path]:
    """The package's files that a file of it imports, by its text alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            found = SRC.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("hanse.") and found.is_file():
                yield found


def test_whatever_renders_is_in_the_key() -> None:
    begin = Path(str(token_cache.__file__))
    reached, left = set(), [begin]
    while left:
        file = left.pop()
        if file not in reached and file not in {SRC / "hanse" / f"{name}.py" for name in OTHER}:
            reached.add(file)
            left += _imported(file)
    assert {"class_labels.py", "turns.py", "packed.py", "example.py"} <= {
        file.name for file in reached
    }
    assert reached <= set(token_cache.sources())


def test_a_changed_source_is_another_rendering(
    rendering: Rendering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rendering.digest()
    files = [tmp_path / f"{at}-{file.name}" for at, file in enumerate(token_cache.sources())]
    for copy, file in zip(files, token_cache.sources(), strict=True):
        copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(token_cache, "sources", lambda: files)
    token_cache._code.cache_clear()
    assert rendering.digest() == before
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"# changed")
        token_cache._code.cache_clear()
        assert rendering.digest() != before
        file.write_bytes(content)
    token_cache._code.cache_clear()


def test_a_template_that_writes_the_date_has_its_own_each_day(
    rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date(2031, 1, 2)

    def digests() -> list[bytes | None]:
        found = [rendering.digest()]
        with monkeypatch.context() as patch:
            patch.setattr(token_cache, "date", Tomorrow)
            return [*found, rendering.digest()]

    monkeypatch.setattr(rendering.tokenizer, "chat_template", "{{ messages }}")
    plain = digests()
    monkeypatch.setattr(rendering.tokenizer, "chat_template", "{{ strftime_now('%d') }}")
    dated = digests()
    assert plain[0] == plain[1] and dated[0] != dated[1]
    monkeypatch.setattr(rendering.tokenizer, "truncation_side", "left")
    assert rendering.digest() not in dated, "what is cut is cut elsewhere"


def test_what_is_damaged_is_made_again(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    wanted = list(read(Tokenized(rendering, tmp_path), rows(30)))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (b"", whole[:40], whole[:-5], flipped, whole + b"more"):
        file.write_bytes(damaged)
        rendered.clear()
        assert list(read(Tokenized(rendering, tmp_path), rows(30))) == wanted
        assert sum(rendered) == 30 and file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_gone_without(
    rendering: Rendering, tmp_path: Path, rendered: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        found = read(Tokenized(rendering, tmp_path / "taken"), rows(30))
    assert list(found) == rendering.render(rows(30))
    assert len(caplog.records) == 1
    assert "later runs will tokenize these rows again" in caplog.text


def test_a_bad_row_is_named_and_nothing_is_kept(
    rendering: Rendering, tmp_path: Path, rendered: list[int]
) -> None:
    some = [*rows(30), Row(text="", label="positive", place="reviews:31")]
    short = replace(rendering, template="{text}")
    reader = Tokenized(short, tmp_path)
    with pytest.raises(UserError, match="reviews:31: this tokenizer makes no tokens"):
        read(reader, some)
    assert not list(tmp_path.iterdir())
    assert len(read(reader, some[:30])) == 30
