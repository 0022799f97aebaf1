"""Rows as examples, each tokenized once, whichever clients and runs read it.

In memory they are packed into arrays, and what takes long is kept on disk for later runs.
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
from hanse.data.tokenization import render
from hanse.data.tokenization.tokenizer import Tokenizer, encode
from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.errors import UserError
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

BLOCK = 1024  # rows that are tokenized at once, since as objects their tokens take much memory
WORTH = 1000  # rows from which on the tokens are kept on disk: fewer are made as fast as read
_KEY = 16  # bytes that tell one row from another
# Attributes of a tokenizer that change tokens and are not in its tokenizer.json.
_OWN = (
    *("bos_token_id", "eos_token_id", "special_tokens_map", "chat_template", "truncation_side"),
    *("split_special_tokens", "src_lang", "tgt_lang"),
)
_TODAY = "strftime_now"  # by this function a chat template writes the date


@dataclass(frozen=True)
class Rendering:
    """How rows become examples; see `render.render`.

    vocabulary: of how many tokens the model has embeddings, if it has any.
    """

    tokenizer: Tokenizer
    example_kind: str
    labels: Mapping[str, str]
    template: str
    max_length: int
    vocabulary: int | None = None

    def render(self, rows: Sequence[Row]) -> list[Example]:
        """The examples of rows, in their order; raises UserError for what cannot be read."""
        found = render.render(
            rows, self.tokenizer, self.example_kind, self.labels, self.template, self.max_length
        )
        for row, example in zip(rows, found, strict=True):
            self._refuse_beyond(example.ids, row.place)
        if self.example_kind == "label_words" and found:
            for choice in found[0].choices:
                self._refuse_beyond(choice, "a label's word")
        return found

    def _refuse_beyond(self, ids: Sequence[int], place: str) -> None:
        refuse_beyond(ids, self.tokenizer, self.vocabulary, place)

    def digest(self) -> bytes | None:
        """What tells this rendering from all others; None if the tokenizer cannot be written."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        encode(self.tokenizer, ["a"])  # puts back what others may have set: cutting and padding
        template = str(self.tokenizer.chat_template)
        own = [type(self.tokenizer).__qualname__, self.tokenizer.all_special_tokens]
        own += [getattr(self.tokenizer, name, None) for name in _OWN]
        own += [date.today().isoformat()] if _TODAY in template else []
        settings = [self.example_kind, list(self.labels.items()), self.template, self.max_length]
        settings.append(self.vocabulary)
        libraries = [version(name) for name in ("tokenizers", "transformers", "jinja2")]
        told = json.dumps([own, settings, libraries], default=str)
        found = hashlib.sha256(told.encode())
        found.update(backend.to_str().encode())
        found.update(_code())
        return found.digest()


def sources() -> list[Path]:
    """The files whose code decides what an example is: all of `hanse.data`."""
    return sorted(Path(__file__).parent.parent.rglob("*.py"))


@cache
def _code() -> bytes:
    """A hash of all sources, so that nobody has to remember to raise a version."""
    found = hashlib.sha256()
    for file in sources():
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.digest()


class Tokenized:
    """The examples of one rendering: of rows with the same content there is one.

    folder: where they are kept for later runs.
    """

    def __init__(self, rendering: Rendering, folder: Path) -> None:
        self.rendering = rendering
        self.folder = folder
        self._packed = pack([])
        self._places: dict[bytes, int] = {}

    def examples(self, rows: Sequence[Row]) -> Examples:
        """The examples of rows, in their order; those not yet known are tokenized now.

        Raises UserError for rows that do not fit, with their place.
        """
        keys = [_key(row) for row in rows]
        fresh: dict[bytes, Row] = {}
        for key, row in zip(keys, rows, strict=True):
            if key not in self._places:
                fresh.setdefault(key, row)
        if fresh:
            order, made = self._made(fresh)
            self._places |= {key: at for at, key in enumerate(order, len(self._packed))}
            self._packed = join([self._packed, made])
        return Examples(self._packed, np.array([self._places[key] for key in keys], np.int32))

    def _made(self, rows: Mapping[bytes, Row]) -> tuple[list[bytes], Packed]:
        """The examples of rows by their keys, and in which order: an earlier run may have another.

        Runs that divide the same rows otherwise share one file.
        """
        digest = self.rendering.digest() if len(rows) >= WORTH else None
        if digest is None:
            return list(rows), self._rendered(list(rows.values()))
        name = hashlib.sha256(b"".join([digest, *sorted(rows)])).hexdigest()
        file = self.folder / f"{name}.tokens"
        try:
            found = _read(file)
        except UserError as error:  # what is kept can be made again, and stays as it is
            log.warning("these rows are tokenized again: %s", error)
            return list(rows), self._rendered(list(rows.values()))
        if found is None:
            found = list(rows), self._rendered(list(rows.values()))
            _write(file, *found)
        return found

    def _rendered(self, rows: Sequence[Row]) -> Packed:
        parts = [pack([])]
        for start in range(0, len(rows), BLOCK):
            report(Work(Activity.TOKENIZING, "", start, len(rows)))
            parts.append(pack(self.rendering.render(rows[start : start + BLOCK])))
        return join(parts)


def _key(row: Row) -> bytes:
    """What tells a row's content from others'."""
    said = (row.messages, row.prompt, row.completion, row.text, row.label, row.chosen, row.rejected)
    whole = (*said, row.words, row.tags)
    return hashlib.blake2b(repr(whole).encode(), digest_size=_KEY).digest()


def _read(file: Path) -> tuple[list[bytes], Packed] | None:
    """The keys and the examples in a file, if it is there and whole.

    Raises UserError if the system refuses to read it.
    """
    try:
        content = atomic_files.unseal(file)
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


def _write(file: Path, keys: Sequence[bytes], made: Packed) -> None:
    """Keep examples for later runs; a run goes on without if that cannot be done."""
    arrays = {**made.arrays(), "keys": np.frombuffer(b"".join(keys), np.uint8)}
    try:
        atomic_files.seal(
            file, safetensors.numpy.save(arrays)
        )  # private: they are somebody's texts
        atomic_files.sweep(file.parent, age=atomic_files.DAY)
    except (OSError, UserError) as error:
        log.warning("later runs will tokenize these rows again: %s", error)
