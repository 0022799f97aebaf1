"""Tokenizes conversations, completions and plain texts, and marks the tokens to learn."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats import turns
from hanse.data.formats.row import Row
from hanse.data.tokenization.conversations import Passage, conversation, written
from hanse.data.tokenization.shortening import Measure, shortened
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead, shared, targets
from hanse.data.tokenization.tool_use import loses_text
from hanse.errors import UserError


def passages(
    rows: Sequence[Row], tokenizer: Tokenizer, max_length: int, answers: int = 1
) -> list[Example]:
    """The examples of rows that are not labelled, each at most `max_length` tokens.

    A longer conversation keeps its system turn and the latest turns that fit; other prompts lose
    their beginning, and texts and answers their end.
    answers: so many rows, one after another, answer the same prompt, and lose the same part of it.
    Raises UserError for a row of which nothing would be left to learn.
    """
    texts = [_passage(row, tokenizer) for row in rows]
    tokens = encode(tokenizer, [passage.text for passage in texts])
    front = lead(tokenizer)
    lost = [Lost.BESIDE_CALL if loses_text(row, tokenizer) else Lost.NOTHING for row in rows]
    sizes = list(map(len, tokens))
    groups = [range(at, at + answers) for at in range(0, len(rows), answers)]
    for group in groups:
        room = max_length - (len(front) if texts[group[0]].open else 0)
        too_long = any(len(tokens[at]) > room for at in group)
        if rows[group[0]].kind == "messages" and too_long:
            short, parts = _short([rows[at] for at in group], tokenizer, room)
            for at, row in zip(group, short, strict=True):
                texts[at], lost[at] = _passage(row, tokenizer), lost[at] | parts
                [tokens[at]] = encode(tokenizer, [texts[at].text])
    edges = _edges(texts, tokens, tokenizer)
    pieces = list(map(partial(_piece, tokenizer, front), texts, tokens, edges))
    result = []
    for group in groups:
        excess = _excess([pieces[at] for at in group], max_length)
        for at in group:
            cut = 0 if rows[at].messages else excess
            example = _cut(rows[at], pieces[at], cut, max_length)
            starts = [len(pieces[at].front) + start - cut for start in edges[at][::2]]
            example = _answered(example, starts, texts[at].answers)
            missing = sizes[at] - len(tokens[at]) + pieces[at].size - len(example)
            result.append(replace(example, lost=example.lost | lost[at], missing=missing))
    return result


class _Piece(NamedTuple):
    """The tokens of a text, uncut.

    front: the tokenizer's first token, which stays, as the model expects it.
    learned: for each of `ids`, whether it is learned.
    """

    front: list[int]
    ids: list[int]
    learned: list[bool]

    @property
    def size(self) -> int:
        """The number of all tokens."""
        return len(self.front) + len(self.ids)

    @property
    def prompt(self) -> int:
        """The number of tokens before the first learned one."""
        place = self.learned.index(True) if True in self.learned else len(self.ids)
        return len(self.front) + place

    @property
    def answer(self) -> int:
        """The number of tokens from the first learned one on."""
        return self.size - self.prompt


def _piece(
    tokenizer: Tokenizer, front: list[int], passage: Passage, ids: list[int], edges: Sequence[int]
) -> _Piece:
    """The tokens of a passage, with the end-of-text token if it follows."""
    close = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    after = close if passage.closed and ids[-1:] != close else []
    learned = _learned(edges, len(ids)) + [True] * len(after)
    return _Piece(front if passage.open else [], ids + after, learned)


def _learned(edges: Sequence[int], size: int) -> list[bool]:
    """True for each of `size` tokens in a learned part; edges: (first token, end) of each, flat."""
    learned = [False] * size
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        learned[start:end] = [True] * (end - start)
    return learned


def _short(rows: Sequence[Row], tokenizer: Tokenizer, room: int) -> tuple[list[Row], Lost]:
    """A conversation with each of its last answers in `room` tokens, and the parts left out."""
    ends = [row.messages[turns.answers(row.messages)[-1]] for row in rows]

    def versions(row: Row) -> list[Row]:
        return [replace(row, messages=(*row.messages[:-1], end)) for end in ends]

    def tokens(row: Row, ask: bool) -> int:
        last = len(row.messages) - 1
        text = written(row, last if ask else last + 1, tokenizer, ask)
        return len(encode(tokenizer, [text])[0])

    measure = Measure(
        whole=lambda row: max(tokens(version, False) for version in versions(row)),
        asked=lambda row: tokens(row, True),
    )
    short, lost = shortened(rows[0], measure, room)
    return versions(short), lost


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


def _excess(pieces: Sequence[_Piece], max_length: int) -> int:
    """The tokens to cut from a prompt that is no conversation, so that all of its answers fit.

    It loses its beginning, but keeps up to half of the room.
    """
    free = max_length - max(piece.answer for piece in pieces)
    rooms = [max(free, min(piece.prompt, max_length // 2)) for piece in pieces]
    return max(0, *(piece.prompt - room for piece, room in zip(pieces, rooms, strict=True)))


def _cut(row: Row, piece: _Piece, cut: int, max_length: int) -> Example:
    """The example of at most max_length tokens; cut: the number cut from the prompt's beginning."""
    ids = [*piece.front, *piece.ids[cut:]][:max_length]
    learned = [*(False for _ in piece.front), *piece.learned[cut:]]
    labels = targets(ids, learned[:max_length])
    if all(label == IGNORED for label in labels):
        raise UserError(
            f"{row.place}: with max_length {max_length} nothing is left to learn of this row; "
            "raise max_length, or drop the row."
        )
    lost = Lost.PROMPT if cut else Lost.NOTHING
    if True in learned[max_length:]:
        lost |= Lost.TEXT if row.kind == "text" else Lost.ANSWER
    return Example(tuple(ids), labels, lost=lost)


def _passage(row: Row, tokenizer: Tokenizer) -> Passage:
    """The text of a row with the parts to learn."""
    if row.kind == "messages":
        return conversation(row, tokenizer)
    if row.kind == "completion":
        text = row.prompt + row.completion
        return Passage(text, ((len(row.prompt), len(text)),), (row.completion,))
    return Passage(row.text, ((0, len(row.text)),))
