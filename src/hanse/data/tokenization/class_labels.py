"""Tokenizes rows of text and label for a model that has an output for each label."""

from collections.abc import Mapping, Sequence

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, excess


def classed(
    rows: Sequence[Row], tokenizer: Tokenizer, words: Mapping[str, str], room: int
) -> list[Example]:
    """The examples of rows: each text, or pair of texts, with the tokenizer's special tokens.

    words: the labels, in the order of the model's outputs. A choice is here the number of an
        output; elsewhere it is a label word's tokens.
    room: most tokens of an example; of a pair, the longer text loses its end first.
    """
    places = {label: index for index, label in enumerate(words)}
    choices = tuple((index,) for index in range(len(words)))
    result = []
    for row, (ids, missing) in zip(rows, _encoded(rows, tokenizer, room), strict=True):
        label = str(row.label)
        example = Example(
            tuple(ids),
            (IGNORED,) * len(ids),
            choices,
            places[label],
            answer=words[label],
            lost=Lost.TEXT if missing else Lost.NOTHING,
            missing=missing,
        )
        result.append(example)
    return result


def _encoded(
    rows: Sequence[Row], tokenizer: Tokenizer, room: int
) -> list[tuple[Sequence[int], int]]:
    """The tokens of each row, and the number of those that are cut.

    Single texts and pairs go to the tokenizer apart: beside pairs it would read a single text as a
    pair with an empty text.
    """
    result: dict[int, tuple[Sequence[int], int]] = {}
    for is_pair in (False, True):
        at = [index for index, row in enumerate(rows) if bool(row.text_pair) == is_pair]
        if not at:
            continue
        texts = [rows[index].text for index in at]
        second = {"text_pair": [rows[index].text_pair for index in at]} if is_pair else {}
        encoded = tokenizer(texts, **second, truncation=True, max_length=room)["input_ids"]
        missing = excess(tokenizer, texts, encoded, room, **second)
        result.update(zip(at, zip(encoded, missing, strict=True), strict=True))
    return [result[index] for index in range(len(rows))]
