"""Tokenizes conversations, completions and plain texts, and marks the tokens to learn."""

from collections.abc import Sequence
from dataclasses import replace

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.formats.turns import answers
from hanse.data.tokenization.conversations import Passage, conversation, written
from hanse.data.tokenization.shortening import Measure, shortened
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead, shared, targets
from hanse.errors import UserError


def passages(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Example]:
    """The examples of rows that are not labelled, each at most `max_length` tokens.

    A longer conversation keeps its system turn and the latest turns that fit; other prompts lose
    their beginning, and texts and answers their end.
    Raises UserError for a row of which nothing would be left to learn.
    """
    texts = [_passage(row, tokenizer) for row in rows]
    tokens = encode(tokenizer, [passage.text for passage in texts])
    front = lead(tokenizer)
    lost = [Lost.NOTHING] * len(rows)
    for at, row in enumerate(rows):
        room = max_length - (len(front) if texts[at].open else 0)
        if row.kind == "messages" and len(tokens[at]) > room:
            short, lost[at] = _short(row, tokenizer, room)
            texts[at] = _passage(short, tokenizer)
            [tokens[at]] = encode(tokenizer, [texts[at].text])
    edges = _edges(texts, tokens, tokenizer)
    close = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    result = []
    for row, passage, ids, edge, missing in zip(rows, texts, tokens, edges, lost, strict=True):
        before = front if passage.open else []
        after = close if passage.closed and ids[-1:] != close else []
        learned = _learned(edge, len(ids)) + [True] * len(after)
        example, cut = _cut(row, before, ids + after, learned, max_length)
        starts = [len(before) + start - cut for start in edge[::2]]
        example = _answered(example, starts, passage.answers)
        result.append(replace(example, lost=example.lost | missing))
    return result


def _learned(edges: Sequence[int], size: int) -> list[bool]:
    """True for each of `size` tokens in a learned part; edges: (first token, end) of each, flat."""
    learned = [False] * size
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        learned[start:end] = [True] * (end - start)
    return learned


def _short(row: Row, tokenizer: Tokenizer, room: int) -> tuple[Row, Lost]:
    """A conversation in at most `room` tokens, and the parts left out."""

    def tokens(row: Row, ask: bool) -> int:
        last = answers(row.messages)[-1]
        text = written(row, last if ask else last + 1, tokenizer, ask)
        return len(encode(tokenizer, [text])[0])

    measure = Measure(whole=lambda row: tokens(row, False), asked=lambda row: tokens(row, True))
    return shortened(row, measure, room)


def _answered(example: Example, starts: list[int], answers: tuple[str, ...]) -> Example:
    """The example with the last of its answers that is not cut away, and the prompt before it."""
    left = [pair for pair in zip(starts, answers, strict=False) if pair[0] < len(example)]
    if not left:
        return example
    prompt, answer = left[-1]
    return replace(example, prompt=prompt, answer=answer)


def _edges(
    passages: Sequence[Passage], tokens: Sequence[list[int]], tokenizer: Tokenizer
) -> list[list[int]]:
    """The tokens at which each passage's learned parts begin and end, in turn.

    The token of a character is the first one in which the tokens of the text up to the character
    differ from those of the whole text. This needs no offsets and works for every tokenizer.
    """
    inner = [
        (index, end)
        for index, passage in enumerate(passages)
        for span in passage.learned
        for end in span
        if 0 < end < len(passage.text)
    ]
    upto = encode(tokenizer, [passages[index].text[:end] for index, end in inner])
    at = {key: shared(ids, tokens[key[0]]) for key, ids in zip(inner, upto, strict=True)}
    return [
        [
            at.get((index, end), len(tokens[index]) if end else 0)
            for span in passage.learned
            for end in span
        ]
        for index, passage in enumerate(passages)
    ]


def _cut(
    row: Row, front: list[int], ids: list[int], learned: list[bool], max_length: int
) -> tuple[Example, int]:
    """The example of at most max_length tokens, and the number of tokens cut from its prompt.

    front: the tokenizer's first token, which stays, as the model expects it. A prompt that is no
    conversation loses its beginning, but keeps up to half of the room.
    """
    prompt = len(front) + (learned.index(True) if True in learned else len(ids))
    size = len(front) + len(ids)
    room = max(max_length - (size - prompt), min(prompt, max_length // 2))
    cut = 0 if row.messages else max(prompt - room, 0)
    ids = [*front, *ids[cut:]][:max_length]
    learned = [*(False for _ in front), *learned[cut:]]
    labels = targets(ids, learned[:max_length])
    if all(label == IGNORED for label in labels):
        raise UserError(
            f"{row.place}: with max_length {max_length} nothing is left to learn of this row; "
            "raise max_length, or drop the row."
        )
    lost = Lost.PROMPT if cut else Lost.NOTHING
    if True in learned[max_length:]:
        lost |= Lost.TEXT if row.kind == "text" else Lost.ANSWER
    return Example(tuple(ids), labels, lost=lost), cut


def _passage(row: Row, tokenizer: Tokenizer) -> Passage:
    """The text of a row with the parts to learn."""
    if row.kind == "messages":
        return conversation(row, tokenizer)
    if row.kind == "completion":
        text = row.prompt + row.completion
        return Passage(text, ((len(row.prompt), len(text)),), (row.completion,))
    return Passage(row.text, ((0, len(row.text)),))
