"""Conversations, completions and plain texts as tokens, with a mask of what is learned."""

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

    A conversation that is longer keeps its system turn and the latest turns that fit; other prompts
    lose their beginning, texts and answers their end.
    Raises UserError for a row of which nothing would be left to learn.
    """
    found = [_passage(row, tokenizer) for row in rows]
    whole = encode(tokenizer, [passage.text for passage in found])
    front = lead(tokenizer)
    lost = [Lost.NOTHING] * len(rows)
    for at, row in enumerate(rows):
        room = max_length - (len(front) if found[at].open else 0)
        if row.kind == "messages" and len(whole[at]) > room:
            short, lost[at] = _short(row, tokenizer, room)
            found[at] = _passage(short, tokenizer)
            [whole[at]] = encode(tokenizer, [found[at].text])
    edges = _edges(found, whole, tokenizer)
    close = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    result = []
    for row, passage, ids, edge, gone in zip(rows, found, whole, edges, lost, strict=True):
        learned = [False] * len(ids)
        for start, end in zip(edge[::2], edge[1::2], strict=True):
            learned[start:end] = [True] * (end - start)
        before = front if passage.open else []
        if passage.closed and ids[-1:] != close:
            ids, learned = ids + close, learned + [True] * len(close)
        example, cut = _cut(row, before, ids, learned, max_length)
        starts = [len(before) + start - cut for start in edge[::2]]
        example = _answered(example, starts, passage.answers)
        result.append(replace(example, lost=example.lost | gone))
    return result


def _short(row: Row, tokenizer: Tokenizer, room: int) -> tuple[Row, Lost]:
    """A conversation in at most `room` tokens, and what is left out."""

    def tokens(row: Row, ask: bool) -> int:
        last = answers(row.messages)[-1]
        text = written(row, last if ask else last + 1, tokenizer, ask)
        return len(encode(tokenizer, [text])[0])

    measure = Measure(whole=lambda row: tokens(row, False), asked=lambda row: tokens(row, True))
    return shortened(row, measure, room)


def _answered(example: Example, starts: list[int], answers: tuple[str, ...]) -> Example:
    """The example with its last answer of which something is left, and the prompt before it."""
    left = [pair for pair in zip(starts, answers, strict=False) if pair[0] < len(example)]
    if not left:
        return example
    prompt, answer = left[-1]
    return replace(example, prompt=prompt, answer=answer)


def _edges(
    found: Sequence[Passage], whole: Sequence[list[int]], tokenizer: Tokenizer
) -> list[list[int]]:
    """The tokens at which each passage's learned parts begin and end, in turn.

    A character's token is where the tokens of the text up to there part from those of the whole.
    That needs no offsets, and so holds for every kind of tokenizer.
    """
    inner = [
        (index, end)
        for index, passage in enumerate(found)
        for span in passage.learned
        for end in span
        if 0 < end < len(passage.text)
    ]
    upto = encode(tokenizer, [found[index].text[:end] for index, end in inner])
    at = {key: shared(ids, whole[key[0]]) for key, ids in zip(inner, upto, strict=True)}
    return [
        [
            at.get((index, end), len(whole[index]) if end else 0)
            for span in passage.learned
            for end in span
        ]
        for index, passage in enumerate(found)
    ]


def _cut(
    row: Row, front: list[int], ids: list[int], learned: list[bool], max_length: int
) -> tuple[Example, int]:
    """At most max_length tokens, and how many are gone from the prompt.

    front: the tokenizer's own first token, which stays what the model expects. A prompt that is no
    conversation loses its left, but keeps half if it needs it.
    """
    prompt = len(front) + (learned.index(True) if True in learned else len(ids))
    size = len(front) + len(ids)
    room = max(max_length - (size - prompt), min(prompt, max_length // 2))
    gone = 0 if row.messages else max(prompt - room, 0)
    ids = [*front, *ids[gone:]][:max_length]
    learned = [*(False for _ in front), *learned[gone:]]
    labels = targets(ids, learned[:max_length])
    if all(label == IGNORED for label in labels):
        raise UserError(
            f"{row.place}: with max_length {max_length} nothing is left to learn of this row; "
            "raise max_length, or drop the row."
        )
    lost = Lost.PROMPT if gone else Lost.NOTHING
    if True in learned[max_length:]:
        lost |= Lost.TEXT if row.kind == "text" else Lost.ANSWER
    return Example(tuple(ids), labels, lost=lost), gone


def _passage(row: Row, tokenizer: Tokenizer) -> Passage:
    if row.kind == "messages":
        return conversation(row, tokenizer)
    if row.kind == "completion":
        text = row.prompt + row.completion
        return Passage(text, ((len(row.prompt), len(text)),), (row.completion,))
    return Passage(row.text, ((0, len(row.text)),))
