"""Rows of text and label for a model that has an output for each label."""

from collections.abc import Mapping, Sequence

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, overlong


def classed(
    rows: Sequence[Row], tokenizer: Tokenizer, words: Mapping[str, str], room: int
) -> list[Example]:
    """The text of each row with the tokenizer's own marks, at most `room` tokens; its end is cut.

    words: the labels, in the order of the model's outputs. A choice is the number of its output,
    as a label word's is the number of its token.
    """
    if not rows:
        return []
    places = {label: index for index, label in enumerate(words)}
    choices = tuple((index,) for index in range(len(words)))
    texts = [row.text for row in rows]
    encoded = tokenizer(texts, truncation=True, max_length=room)["input_ids"]
    long = overlong(tokenizer, texts, encoded, room)
    return [
        Example(
            tuple(ids),
            (IGNORED,) * len(ids),
            choices,
            places[str(row.label)],
            answer=words[str(row.label)],
            lost=Lost.TEXT if cut else Lost.NOTHING,
        )
        for row, ids, cut in zip(rows, encoded, long, strict=True)
    ]
