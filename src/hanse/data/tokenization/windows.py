"""Divides the tokens of a long text among examples, so that all of them are learned."""

from dataclasses import replace
from itertools import pairwise

from hanse.data.example import IGNORED, Example, Lost


def windows(example: Example, max_length: int, front: int) -> list[Example]:
    """The windows of a text: examples of nearly equal length, each at most `max_length` tokens.

    Each token of the text is learned in one window. A window begins with the last token of the one
    before it, which is read there but not learned again.

    example: the whole text. front: the number of first tokens with which each window begins, since
        the model expects them. max_length: at least front + 2.
    """
    body, labels = example.ids[front:], example.labels[front:]
    count = -(-(len(body) - 1) // (max_length - front - 1))
    bounds = [(len(body) - 1) * number // count for number in range(count + 1)]
    result = []
    for start, stop in pairwise(bounds):
        learned = (
            labels[start : stop + 1] if not start else (IGNORED, *labels[start + 1 : stop + 1])
        )
        window = replace(
            example,
            ids=example.ids[:front] + body[start : stop + 1],
            labels=(IGNORED,) * front + learned,
            lost=Lost.REST,
        )
        result.append(window)
    return result
