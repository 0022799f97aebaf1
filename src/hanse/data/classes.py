"""Rows of text and label for a model that has an output for each label."""

from collections.abc import Mapping, Sequence

from hanse.data.formats import Row
from hanse.data.tokens import Tokenizer
from hanse.values import IGNORED, Example


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
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=room)
    return [
        Example(
            tuple(ids),
            (IGNORED,) * len(ids),
            choices,
            places[str(row.label)],
            answer=words[str(row.label)],
        )
        for row, ids in zip(rows, encoded["input_ids"], strict=True)
    ]
