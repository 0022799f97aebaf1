"""Tokenizes rows of text and label for a model that has an output for each label."""

from collections.abc import Mapping, Sequence

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, overlong


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
    for row, (ids, is_cut) in zip(rows, _encoded(rows, tokenizer, room), strict=True):
        label, lost = str(row.label), Lost.TEXT if is_cut else Lost.NOTHING
        nothing = (IGNORED,) * len(ids)
        example = Example(
            tuple(ids), nothing, choices, places[label], answer=words[label], lost=lost
        )
        result.append(example)
    return result


def _encoded(
    rows: Sequence[Row], tokenizer: Tokenizer, room: int
) -> list[tuple[Sequence[int], bool]]:
    """The tokens of each row, and True if they are cut.

    Single texts and pairs go to the tokenizer apart: beside pairs it would read a single text as a
    pair with an empty text.
    """
    result: dict[int, tuple[Sequence[int], bool]] = {}
    for is_pair in (False, True):
        at = [index for index, row in enumerate(rows) if bool(row.text_pair) == is_pair]
        if not at:
            continue
        texts = [rows[index].text for index in at]
        second = {"text_pair": [rows[index].text_pair for index in at]} if is_pair else {}
        encoded = tokenizer(texts, **second, truncation=True, max_length=room)["input_ids"]
        cut = overlong(tokenizer, texts, encoded, room, **second)
        result.update(zip(at, zip(encoded, cut, strict=True), strict=True))
    return [result[index] for index in range(len(rows))]
