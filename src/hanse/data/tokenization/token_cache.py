"""Tokenizes each row once for all clients, and for later runs.

Examples are packed into arrays in memory; those of many rows are kept on disk, too.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hanse import atomic_files
from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.packed import Examples, Packed, join, pack
from hanse.data.tokenization import prompt_template, render
from hanse.data.tokenization.tokenizer import Tokenizer, encode
from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.errors import UserError
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

BLOCK = 1024  # rows that are tokenized at once: unpacked, their tokens take much memory
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
    """

    tokenizer: Tokenizer
    example_kind: str
    labels: Mapping[str, str]
    template: str
    max_length: int
    vocabulary: int | None = None

    def render(self, rows: Sequence[Row]) -> list[Example]:
        """The examples of rows, in their order; raises UserError for rows that do not fit."""
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
        settings.append(self.vocabulary)
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
        self._places: dict[bytes, int] = {}

    def examples(self, rows: Sequence[Row]) -> Examples:
        """The examples of rows, in their order; new rows are tokenized now.

        Raises UserError for rows that do not fit, with their place.
        """
        labelled = any(row.label is not None for row in rows)
        columns = prompt_template.parse(self.rendering.template).fields if labelled else ()
        keys = [_key(row, columns) for row in rows]
        fresh: dict[bytes, Row] = {}
        for key, row in zip(keys, rows, strict=True):
            if key not in self._places:
                fresh.setdefault(key, row)
        if fresh:
            order, packed = self._tokenized(fresh)
            self._places |= {key: at for at, key in enumerate(order, len(self._packed))}
            self._packed = join([self._packed, packed])
        return Examples(self._packed, np.array([self._places[key] for key in keys], np.int32))

    def _tokenized(self, rows: Mapping[bytes, Row]) -> tuple[list[bytes], Packed]:
        """The examples of rows, and their keys in the same order, from disk if they are there.

        The order is that of the run that wrote the file: runs that divide the same rows in another
        way share one file.
        """
        digest = self.rendering.digest() if len(rows) >= WORTH else None
        if digest is None:
            return list(rows), self._rendered(list(rows.values()))
        name = hashlib.sha256(b"".join([digest, *sorted(rows)])).hexdigest()
        file = self.folder / f"{name}.tokens"
        try:
            tokenized = _read(file)
        except UserError as error:  # the file stays as it is
            log.warning("these rows are tokenized again: %s", error)
            return list(rows), self._rendered(list(rows.values()))
        if tokenized is None:
            tokenized = list(rows), self._rendered(list(rows.values()))
            _write(file, *tokenized)
        return tokenized

    def _rendered(self, rows: Sequence[Row]) -> Packed:
        """Tokenize rows, block by block."""
        parts = [pack([])]
        for start in range(0, len(rows), BLOCK):
            report(Work(Activity.TOKENIZING, "", start, len(rows)))
            parts.append(pack(self.rendering.render(rows[start : start + BLOCK])))
        return join(parts)


def _key(row: Row, columns: Sequence[str]) -> bytes:
    """A hash of a row's content; columns: those that its prompt's template names."""
    texts = row.messages, row.prompt, row.completion, row.text, row.label, row.chosen, row.rejected
    prompt: tuple[object, ...] = ()
    if row.kind == "labelled":
        prompt = (prompt_template.names(row), *map(row.fields.get, columns))
    content = (*texts, row.text_pair, row.words, row.tags, row.verdict, row.tools, prompt)
    return hashlib.blake2b(repr(content).encode(), digest_size=_KEY).digest()


def _read(file: Path) -> tuple[list[bytes], Packed] | None:
    """The keys and the examples in a file; None if it is missing or damaged.

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
        keys = arrays.pop("keys").tobytes()
        return [keys[at : at + _KEY] for at in range(0, len(keys), _KEY)], Packed.of(arrays)
    except (SafetensorError, KeyError, ValueError):
        return None


def _write(file: Path, keys: Sequence[bytes], packed: Packed) -> None:
    """Write examples to disk for later runs; log a warning if this fails."""
    arrays = {**packed.arrays(), "keys": np.frombuffer(b"".join(keys), np.uint8)}
    content = safetensors.numpy.save(arrays)
    try:
        atomic_files.write_hashed(file, content, private=True)  # it holds texts of the data
        atomic_files.sweep(file.parent, age=atomic_files.DAY)
    except (OSError, UserError) as error:
        log.warning("later runs will tokenize these rows again: %s", error)
