"""Calls of a tokenizer: tokens of many texts at once, without its special tokens."""

from collections.abc import Sequence
from typing import Any

from hanse.data.example import IGNORED

# A Hugging Face tokenizer, passed in by learners/, since data/ does not import transformers.
Tokenizer = Any


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text; one call for all is much faster than one for each."""
    if not texts:
        return []
    # verbose=False: texts that are too long are cut later, and a warning would mislead.
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def excess(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    cut: Sequence[Sequence[int]],
    room: int,
    text_pair: Sequence[str] = (),
) -> list[int]:
    """The number of each text's tokens beyond `room`; cut: its first `room` tokens.

    text_pair: the second text of each pair, if the texts are pairs.
    """
    full = [at for at, ids in enumerate(cut) if len(ids) >= room]
    lists = [[texts[at] for at in full], *([[text_pair[at] for at in full]] if text_pair else [])]
    uncut = tokenizer(*lists, verbose=False)["input_ids"] if full else []
    beyond = {at: len(ids) - room for at, ids in zip(full, uncut, strict=True)}
    return [beyond.get(at, 0) for at in range(len(texts))]


def lead(tokenizer: Tokenizer) -> list[int]:
    """The token that this tokenizer puts before every text, as a list; empty without one."""
    start = tokenizer.bos_token_id
    first = list(tokenizer("a")["input_ids"])[:1]
    return first if start is not None and first == [start] else []


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens that two sequences have in common at their beginning."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def targets(ids: Sequence[int], learned: Sequence[bool]) -> tuple[int, ...]:
    """The labels of an example: each learned token itself, IGNORED elsewhere.

    The first token is never learned: no token precedes it to predict it from.
    """
    return tuple(
        token if position and flag else IGNORED
        for position, (token, flag) in enumerate(zip(ids, learned, strict=True))
    )
