"""Rows of words and tags for a model that has an output for each token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, overlong
from hanse.errors import UserError

SPACE = " "
NONE = -1  # what a space belongs to


def tag_names(rows: Iterable[Row], labels: Mapping[str, str]) -> dict[str, str]:
    """The name of each tag, in the order of the model's outputs.

    Empty `labels` means that the tags of these rows, sorted, are their own names.
    """
    return dict(labels) or {tag: tag for tag in sorted({tag for row in rows for tag in row.tags})}


def refuse_names(names: Mapping[str, str]) -> None:
    """Raise UserError for tags between which there is nothing to choose."""
    if len(names) < 2:
        raise UserError(
            f"objective tag chooses between tags, but there is only {', '.join(names)!r}; name all "
            "tags in data.labels."
        )
    first: dict[str, str] = {}
    for tag, name in names.items():
        if first.setdefault(name, tag) != tag:
            raise UserError(
                f"data.labels calls both tags {first[name]!r} and {tag!r} {name!r}; give each a "
                "name of its own, or make them one in the data."
            )


def refuse_unknown(rows: Iterable[Row], names: Mapping[str, str]) -> None:
    """Raise UserError for a row with a tag that no output of the model stands for."""
    for row in rows:
        for tag in row.tags:
            if tag not in names:
                raise UserError(
                    f"{row.place}: the tag {tag!r} is none of the {len(names)} that the training "
                    "rows, or data.labels, have; name all tags in data.labels, drop the row, or "
                    "hold out other rows with data.split_seed."
                )


def tagged(
    rows: Sequence[Row], tokenizer: Tokenizer, names: Mapping[str, str], room: int
) -> list[Example]:
    """The words of each row with the tokenizer's own marks, at most `room` tokens; the end is cut.

    A word's tag stands at its first token, and its other tokens have none (Devlin et al. 2019,
    1810.04805, section 5.3). The words are read as one text with a space between them.
    Raises UserError for a tokenizer that does not say where its tokens stand.
    """
    if not rows:
        return []
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "this model's tokenizer does not say which token belongs to which word; take a model "
            "with a tokenizer.json."
        )
    places = {tag: index for index, tag in enumerate(names)}
    classes = tuple(names.values())
    encoded = _encoded(rows, tokenizer, room)
    long = overlong(tokenizer, [row.text for row in rows], encoded["input_ids"], room)
    result = []
    columns = encoded["input_ids"], encoded["offset_mapping"], long
    for row, ids, spans, cut in zip(rows, *columns, strict=True):
        tags = [IGNORED] * len(ids)
        for token, word in _first_tokens(row.words, spans):
            tags[token] = places[row.tags[word]]
        if all(tag == IGNORED for tag in tags):
            raise UserError(
                f"{row.place}: this model's tokenizer makes nothing of these words, or max_length "
                f"{room} leaves none of them; drop the row."
            )
        nothing = (IGNORED,) * len(ids)
        lost = Lost.TEXT if cut else Lost.NOTHING
        result.append(Example(tuple(ids), nothing, tags=tuple(tags), classes=classes, lost=lost))
    return result


def read_words(row: Row, tokenizer: Tokenizer, room: int) -> list[int]:
    """Which of a row's words have a token of their own, and so a tag, among `room` tokens."""
    [spans] = _encoded([row], tokenizer, room)["offset_mapping"]
    return [word for _, word in _first_tokens(row.words, spans)]


def _encoded(rows: Sequence[Row], tokenizer: Tokenizer, room: int) -> Mapping[str, Any]:
    texts = [row.text for row in rows]
    found: Mapping[str, Any] = tokenizer(
        texts, truncation=True, max_length=room, return_offsets_mapping=True
    )
    return found


def _first_tokens(
    words: Sequence[str], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The first token of each word that has one, and the word.

    spans: from which character to which each token goes; marks of the tokenizer's own are empty.
    """
    owner = [word for word, letters in enumerate(words) for _ in (*letters, SPACE)]
    for end in accumulate(len(word) + 1 for word in words):
        owner[end - 1] = NONE
    begun = NONE
    for token, (start, end) in enumerate(spans):
        # Many tokenizers put the space before a word into its first token.
        word = next((own for own in owner[start:end] if own != NONE), NONE)
        if word > begun:
            begun = word
            yield token, word
