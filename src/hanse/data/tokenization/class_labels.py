"""Tokenizes rows of text and label for a model that has an output for each label."""

from collections.abc import Mapping, Sequence

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, overlong


def classed(
    rows: Sequence[Row], tokenizer: Tokenizer, words: Mapping[str, str], room: int
) -> list[Example]:
    """The examples of rows: each text, or pair of texts, with the tokenizer's special tokens.

    room: most tokens of an example; of a pair, the longer text loses its end first.

    words: the labels, in the order of the model's outputs. A choice is here the number of an
        output; elsewhere it is a label word's tokens.
    """
    if not rows:
        return []
    places = {label: index for index, label in enumerate(words)}
    choices = tuple((index,) for index in range(len(words)))
    texts, pairs = [row.text for row in rows], [row.text_pair for row in rows]
    second = {"text_pair": pairs} if any(pairs) else {}
    encoded = tokenizer(texts, **second, truncation=True, max_length=room)["input_ids"]
    cut = overlong(tokenizer, texts, encoded, room, **second)
    result = []
    for row, ids, is_cut in zip(rows, encoded, cut, strict=True):
        label, lost = str(row.label), Lost.TEXT if is_cut else Lost.NOTHING
        nothing = (IGNORED,) * len(ids)
        example = Example(
            tuple(ids), nothing, choices, places[label], answer=words[label], lost=lost
        )
        result.append(example)
    return result
