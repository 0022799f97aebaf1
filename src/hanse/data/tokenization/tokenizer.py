"""What a tokenizer is asked: the tokens of many texts at once, without tokens of its own."""

from collections.abc import Sequence
from typing import Any

from hanse.data.example import IGNORED

# A Hugging Face tokenizer. It is passed in, since only learners/ may import transformers.
Tokenizer = Any


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text; one call for all, which is much faster than one for each."""
    if not texts:
        return []
    # verbose: a text beyond the model's length is cut here later, so its warning would mislead.
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def overlong(
    tokenizer: Tokenizer, texts: Sequence[str], found: Sequence[Sequence[int]], room: int
) -> list[bool]:
    """Whether each text has more than the `room` tokens that were made of it."""
    full = [at for at, ids in enumerate(found) if len(ids) >= room]
    whole = tokenizer([texts[at] for at in full], verbose=False)["input_ids"] if full else []
    long = {at for at, ids in zip(full, whole, strict=True) if len(ids) > room}
    return [at in long for at in range(len(texts))]


def lead(tokenizer: Tokenizer) -> list[int]:
    """The token that this tokenizer puts before every text, if it does so by itself."""
    start = tokenizer.bos_token_id
    first = list(tokenizer("a")["input_ids"])[:1]
    return first if start is not None and first == [start] else []


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the left."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def targets(ids: Sequence[int], learned: Sequence[bool]) -> tuple[int, ...]:
    """The labels of an example: each learned token itself, IGNORED elsewhere.

    The first token is never learned: nothing precedes it from which it could be predicted.
    """
    return tuple(
        token if position and flag else IGNORED
        for position, (token, flag) in enumerate(zip(ids, learned, strict=True))
    )
