"""Tokenizes each row once for all clients, and for later runs.

Examples are packed into arrays in memory; those of many rows are kept on disk, too.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib.metadata import version
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hanse import atomic_files
from hanse.data.example import Example, Lost
from hanse.data.formats.row import Row
from hanse.data.packed import Examples, Packed, join, pack
from hanse.data.tokenization import prompt_template, render
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead
from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.data.tokenization.windows import windows
from hanse.errors import UserError
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

BLOCK = 1024  # rows that are tokenized at once: unpacked, their tokens take much memory
ANY_LENGTH = 1_000_000_000  # more tokens than any text has
WORTH = 1000  # fewer rows are not kept on disk: they are tokenized as fast as they are read
_KEY = 16  # bytes of a row's hash
# Attributes of a tokenizer that change tokens and are not in its tokenizer.json.
_ATTRIBUTES = (
    *("bos_token_id", "eos_token_id", "special_tokens_map", "chat_template", "truncation_side"),
    *("split_special_tokens", "src_lang", "tgt_lang"),
)
_TODAY = "strftime_now"  # the function by which a chat template writes the date


@dataclass(frozen=True)
class Rendering:
    """The settings by which rows become examples; see `render.render`.

    vocabulary: the number of the model's embeddings; None if it has none.
    windowed: a text that is longer than max_length becomes several examples; else its end is cut.
    """

    tokenizer: Tokenizer
    example_kind: str
    labels: Mapping[str, str]
    template: str
    max_length: int
    vocabulary: int | None = None
    windowed: bool = False

    def examples(self, rows: Sequence[Row]) -> list[list[Example]]:
        """The examples of each row: one, or the windows of a long text.

        Raises UserError for rows that do not fit.
        """
        result = [[example] for example in self.render(rows)]
        if not self.windowed:
            return result
        long = [
            index
            for index, [example] in enumerate(result)
            if rows[index].kind == "text" and example.lost & Lost.TEXT
        ]
        whole = replace(self, max_length=ANY_LENGTH).render([rows[index] for index in long])
        front = len(lead(self.tokenizer))
        for index, example in zip(long, whole, strict=True):
            result[index] = windows(example, self.max_length, front)
        return result

    def render(self, rows: Sequence[Row]) -> list[Example]:
        """One example of each row, in their order; raises UserError for rows that do not fit."""
        examples = render.render(
            rows, self.tokenizer, self.example_kind, self.labels, self.template, self.max_length
        )
        for row, example in zip(rows, examples, strict=True):
            self._refuse_beyond(example.ids, row.place)
        if self.example_kind == "label_words" and examples:
            for choice in examples[0].choices:
                self._refuse_beyond(choice, "a label's word")
        return examples

    def _refuse_beyond(self, ids: Sequence[int], place: str) -> None:
        """Raise UserError for a token that the model has no embedding of."""
        refuse_beyond(ids, self.tokenizer, self.vocabulary, place)

    def digest(self) -> bytes | None:
        """A hash of all that determines the examples; None if the tokenizer has no JSON form."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        encode(self.tokenizer, ["a"])  # resets truncation and padding, which others may have set
        template = str(self.tokenizer.chat_template)
        tokenizer = [type(self.tokenizer).__qualname__, self.tokenizer.all_special_tokens]
        tokenizer += [getattr(self.tokenizer, name, None) for name in _ATTRIBUTES]
        tokenizer += [date.today().isoformat()] if _TODAY in template else []
        settings = [self.example_kind, list(self.labels.items()), self.template, self.max_length]
        settings += [self.vocabulary, self.windowed]
        libraries = [version(name) for name in ("tokenizers", "transformers", "jinja2")]
        text = json.dumps([tokenizer, settings, libraries], default=str)
        digest = hashlib.sha256(text.encode())
        digest.update(backend.to_str().encode())
        digest.update(_code())
        return digest.digest()


def sources() -> list[Path]:
    """The source files that determine the examples: all of `hanse.data`."""
    return sorted(Path(__file__).parent.parent.rglob("*.py"))


@cache
def _code() -> bytes:
    """A hash of all sources: a change of the code makes files of former code unused."""
    digest = hashlib.sha256()
    for file in sources():
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


class Tokenized:
    """The examples of one rendering, one for all rows with the same content.

    folder: on disk, for later runs.
    """

    def __init__(self, rendering: Rendering, folder: Path) -> None:
        self.rendering = rendering
        self.folder = folder
        self._packed = pack([])
        self._places: dict[bytes, range] = {}

    def examples(self, lists: Sequence[Sequence[Row]]) -> list[Examples]:
        """The examples of each list of rows; new rows of all lists are tokenized together.

        Raises UserError for rows that do not fit, with their place.
        """
        rows = [row for each in lists for row in each]
        labelled = any(row.label is not None for row in rows)
        columns = prompt_template.parse(self.rendering.template).fields if labelled else ()
        keys = [_key(row, columns) for row in rows]
        fresh: dict[bytes, Row] = {}
        for key, row in zip(keys, rows, strict=True):
            if key not in self._places:
                fresh.setdefault(key, row)
        if fresh:
            order, counts, packed = self._tokenized(fresh)
            ends = accumulate(counts, initial=len(self._packed))
            self._places |= {
                key: range(*places) for key, places in zip(order, pairwise(ends), strict=True)
            }
            self._packed = join([self._packed, packed])
        places = iter([self._places[key] for key in keys])
        return [
            Examples(self._packed, np.array([*chain(*islice(places, len(each)))], np.int32))
            for each in lists
        ]

    def _tokenized(self, rows: Mapping[bytes, Row]) -> "_Tokens":
        """The examples of rows, from disk if they are there.

        The order is that of the run that wrote the file: runs that divide the same rows in another
        way share one file.
        """
        digest = self.rendering.digest() if len(rows) >= WORTH else None
        if digest is None:
            return self._rendered(rows)
        name = hashlib.sha256(b"".join([digest, *sorted(rows)])).hexdigest()
        file = self.folder / f"{name}.tokens"
        try:
            tokens = _read(file)
        except UserError as error:  # the file stays as it is
            log.warning("these rows are tokenized again: %s", error)
            return self._rendered(rows)
        if tokens is None:
            tokens = self._rendered(rows)
            _write(file, tokens)
        return tokens

    def _rendered(self, rows: Mapping[bytes, Row]) -> "_Tokens":
        """Tokenize rows, block by block."""
        parts, every = [pack([])], list(rows.values())
        counts: list[int] = []
        for start in range(0, len(every), BLOCK):
            report(Work(Activity.TOKENIZING, "", start, len(every)))
            examples = self.rendering.examples(every[start : start + BLOCK])
            counts += map(len, examples)
            parts.append(pack([*chain(*examples)]))
        return _Tokens(list(rows), counts, join(parts))


class _Tokens(NamedTuple):
    """The examples of rows: each row's key, the number of its examples, and all examples."""

    keys: list[bytes]
    counts: list[int]
    packed: Packed


def _key(row: Row, columns: Sequence[str]) -> bytes:
    """A hash of a row's content; columns: those that its prompt's template names."""
    texts = row.messages, row.prompt, row.completion, row.text, row.label, row.chosen, row.rejected
    prompt: tuple[object, ...] = ()
    if row.kind == "labelled":
        prompt = (prompt_template.names(row), *map(row.fields.get, columns))
    calls = row.tools, row.chosen_calls, row.rejected_calls
    content = (*texts, row.text_pair, row.words, row.tags, row.verdict, *calls, prompt)
    return hashlib.blake2b(repr(content).encode(), digest_size=_KEY).digest()


def _read(file: Path) -> _Tokens | None:
    """The examples in a file; None if it is missing or damaged.

    Raises UserError if the system refuses to read it.
    """
    try:
        content = atomic_files.find_hashed(file)
    except atomic_files.DamagedError as error:
        log.warning("%s; its rows are tokenized again", error)
        return None
    if content is None:
        return None
    try:
        arrays = safetensors.numpy.load(content)
        joined, counts = arrays.pop("keys").tobytes(), arrays.pop("counts").tolist()
        keys = [joined[at : at + _KEY] for at in range(0, len(joined), _KEY)]
        return _Tokens(keys, counts, Packed.of(arrays))
    except (SafetensorError, KeyError, ValueError):
        return None


def _write(file: Path, tokens: _Tokens) -> None:
    """Write examples to disk for later runs; log a warning if this fails."""
    keys = np.frombuffer(b"".join(tokens.keys), np.uint8)
    arrays = {**tokens.packed.arrays(), "keys": keys, "counts": np.array(tokens.counts, np.int32)}
    content = safetensors.numpy.save(arrays)
    try:
        atomic_files.write_hashed(file, content, private=True)  # it holds texts of the data
        atomic_files.sweep(file.parent, age=atomic_files.DAY)
    except (OSError, UserError) as error:
        log.warning("later runs will tokenize these rows again: %s", error)
