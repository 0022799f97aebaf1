"""Conversations that are too long for a model, cut at their turns.

The latest turns that fit are kept, behind the system turn; the chat template writes what is left,
so that every turn has its role. Only if not even the last exchange fits, the question loses its
beginning and then the system turn its end; the answer's end is cut by whoever makes tokens.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hanse.data.example import Lost
from hanse.data.formats.row import Row
from hanse.data.formats.turns import Turn, answers, turn


@dataclass(frozen=True)
class Measure:
    """How many tokens a conversation has.

    whole: up to the end of its last answer. asked: up to where that answer begins.
    """

    whole: Callable[[Row], int]
    asked: Callable[[Row], int]


def shortened(row: Row, measure: Measure, room: int) -> tuple[Row, Lost]:
    """A conversation of more than `room` tokens in as many, and what is left out.

    Of the room an answer that is too long leaves half to what is asked.
    """
    last = answers(row.messages)[-1]
    system = next((at for at, said in enumerate(row.messages) if said["role"] != "system"), last)
    row = replace(row, messages=row.messages[: last + 1])
    starts = [at for at in range(system, last) if _opens(row.messages, at)]

    def latest(count: int) -> Row:
        start = starts[-count] if count else system
        return replace(row, messages=(*row.messages[:system], *row.messages[start:]))

    count = most(len(starts), lambda count: measure.whole(latest(count)) <= room)
    kept = latest(count or min(1, len(starts)))
    lost = Lost.TURNS if len(kept.messages) < len(row.messages) else Lost.NOTHING
    if count:
        return kept, lost
    answer = measure.whole(kept) - measure.asked(kept)

    def fits(row: Row) -> bool:
        return measure.asked(row) <= max(room - answer, room // 2)

    before = sum(len(said["content"]) for said in kept.messages[system:-1])
    if before and not fits(kept):
        kept, lost = _trimmed(kept, partial(_question, system), before, fits), lost | Lost.PROMPT
    before = len(kept.messages[0]["content"]) if system else 0
    if before and not fits(kept):
        kept, lost = _trimmed(kept, _system, before, fits), lost | Lost.SYSTEM
    return kept, lost


def _trimmed(
    row: Row, cut: Callable[[Row, int], Row], size: int, fits: Callable[[Row], bool]
) -> Row:
    """The row with as many of `size` characters as fit, of what `cut` keeps."""
    return cut(row, most(size - 1, lambda count: fits(cut(row, count))))


def most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, 0 if 1 does not; small ones are tried first."""
    high = 1
    while high < limit and fits(high):
        high = min(2 * high, limit)
    return bisect_left(range(1, min(high, limit) + 1), True, key=lambda number: not fits(number))


def _opens(messages: tuple[Turn, ...], at: int) -> bool:
    """Whether a conversation may begin here: with what a user says, and the whole of it."""
    return messages[at]["role"] == "user" and (not at or messages[at - 1]["role"] != "user")


def _question(system: int, row: Row, count: int) -> Row:
    """The conversation with the last `count` characters of what is said before the answer."""
    cut: list[Turn] = []
    for said in reversed(row.messages[system:-1]):
        content = said["content"]
        left = content[max(len(content) - count, 0) :]
        count -= len(left)
        # Half of an answer is not learned.
        whole = left == content
        cut.append(said if whole else turn(said["role"], left, said["role"] != "assistant"))
    return replace(row, messages=(*row.messages[:system], *reversed(cut), row.messages[-1]))


def _system(row: Row, count: int) -> Row:
    """The conversation with the first `count` characters of its system turn."""
    first = row.messages[0]
    return replace(row, messages=(turn(first["role"], first["content"][:count]), *row.messages[1:]))
