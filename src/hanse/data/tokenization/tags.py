"""Tokenizes rows of words and tags for a model that has an output for each token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, excess
from hanse.errors import UserError

SPACE = " "
NONE = -1  # in place of a word's number: no word


def tag_names(rows: Iterable[Row], labels: Mapping[str, str]) -> dict[str, str]:
    """The name of each tag, in the order of the model's outputs.

    If `labels` is empty, the names are the tags of these rows, sorted.
    """
    return dict(labels) or {tag: tag for tag in sorted({tag for row in rows for tag in row.tags})}


def refuse_names(names: Mapping[str, str]) -> None:
    """Raise UserError if there are fewer than two tags, or two with the same name."""
    if len(names) < 2:
        raise UserError(
            f"objective tag chooses between tags, but there is only {', '.join(names)!r}; name all "
            "tags in data.labels."
        )
    first: dict[str, str] = {}
    for tag, name in names.items():
        if first.setdefault(name, tag) != tag:
            raise UserError(
                f"data.labels gives the tags {first[name]!r} and {tag!r} the same name {name!r}; "
                "give each its own name, or make them one tag in the data."
            )


def refuse_unknown(rows: Iterable[Row], names: Mapping[str, str]) -> None:
    """Raise UserError for a row with a tag for which the model has no output."""
    for row in rows:
        for tag in row.tags:
            if tag not in names:
                raise UserError(
                    f"{row.place}: the tag {tag!r} is none of the {len(names)} of the training "
                    "rows or of data.labels; name all tags in data.labels, drop the row, or "
                    "hold out other rows with data.split_seed."
                )


def tagged(
    rows: Sequence[Row], tokenizer: Tokenizer, names: Mapping[str, str], room: int
) -> list[Example]:
    """The examples of rows: the words with the tokenizer's special tokens, cut to `room` tokens.

    The first token of a word has its tag, and its other tokens have none (Devlin et al. 2019,
    1810.04805, section 5.3). The words are read as one text with a space between them.
    Raises UserError for a tokenizer that does not give the places of its tokens.
    """
    if not rows:
        return []
    _refuse_slow(tokenizer)
    places, classes = {tag: index for index, tag in enumerate(names)}, tuple(names.values())
    encoded = _encoded(rows, tokenizer, room)
    missing = excess(tokenizer, [row.text for row in rows], encoded["input_ids"], room)
    result = []
    columns = encoded["input_ids"], encoded["offset_mapping"], missing
    for row, ids, spans, count in zip(rows, *columns, strict=True):
        tags = [IGNORED] * len(ids)
        for token, word in _first_tokens(row.words, spans):
            tags[token] = places[row.tags[word]]
        if all(tag == IGNORED for tag in tags):
            raise UserError(
                f"{row.place}: this model's tokenizer makes no tokens of these words, or "
                f"max_length {room} leaves none of them; drop the row."
            )
        example = Example(
            tuple(ids),
            (IGNORED,) * len(ids),
            tags=tuple(tags),
            classes=classes,
            lost=Lost.TEXT if count else Lost.NOTHING,
            missing=count,
        )
        result.append(example)
    return result


def _refuse_slow(tokenizer: Tokenizer) -> None:
    """Raise UserError for a tokenizer that does not give the places of its tokens."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "this model's tokenizer does not tell which word a token belongs to; take a model with "
            "a tokenizer.json."
        )


def read_words(row: Row, tokenizer: Tokenizer, room: int) -> list[int]:
    """The numbers of a row's words that have a token, and therefore a tag, in `room` tokens."""
    [spans] = _encoded([row], tokenizer, room)["offset_mapping"]
    return [word for _, word in _first_tokens(row.words, spans)]


def _encoded(rows: Sequence[Row], tokenizer: Tokenizer, room: int) -> Mapping[str, Any]:
    """The tokens of each row's text, at most `room`, with their places in the text."""
    texts = [row.text for row in rows]
    encoded: Mapping[str, Any] = tokenizer(
        texts, truncation=True, max_length=room, return_offsets_mapping=True
    )
    return encoded


def _first_tokens(
    words: Sequence[str], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The numbers of each word's first token and of the word, for words that have one.

    spans: (first character, end) of each token; special tokens have empty ones.
    """
    owner = [word for word, letters in enumerate(words) for _ in (*letters, SPACE)]
    for end in accumulate(len(word) + 1 for word in words):
        owner[end - 1] = NONE
    last = NONE
    for token, (start, end) in enumerate(spans):
        # Many tokenizers put the space before a word into its first token.
        word = next((number for number in owner[start:end] if number != NONE), NONE)
        if word > last:
            last = word
            yield token, word
