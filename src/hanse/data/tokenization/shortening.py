"""Shortens conversations that are too long for a model, at their turns.

The system turn and the latest turns that fit are kept, and the chat template writes these anew, so
every turn has its role. If not even the last question and answer fit, the question loses its
beginning, and then the system turn its end. The end of an answer is cut later, among its tokens.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hanse.data.example import Lost
from hanse.data.formats.row import Row
from hanse.data.formats.turns import Turn, answers, unlearned


@dataclass(frozen=True)
class Measure:
    """Counts the tokens of a conversation.

    whole: up to the end of its last answer. asked: up to the beginning of that answer.
    """

    whole: Callable[[Row], int]
    asked: Callable[[Row], int]


def shortened(row: Row, measure: Measure, room: int) -> tuple[Row, Lost]:
    """A conversation of more than `room` tokens cut to `room` tokens, and the parts left out.

    An answer that is too long leaves half of the room to the prompt.
    """
    last = answers(row.messages)[-1]
    roles = [message["role"] for message in row.messages]
    system = next((at for at, role in enumerate(roles) if role != "system"), last)
    row = replace(row, messages=row.messages[: last + 1])
    starts = [at for at in range(system, last) if _opens(row.messages, at)]

    def latest(count: int) -> Row:
        start = starts[-count] if count else system
        return replace(row, messages=(*row.messages[:system], *row.messages[start:]))

    count = most(len(starts), lambda count: measure.whole(latest(count)) <= room)
    short = latest(count or min(1, len(starts)))
    lost = Lost.TURNS if len(short.messages) < len(row.messages) else Lost.NOTHING
    if count:
        return short, lost
    answer = measure.whole(short) - measure.asked(short)
    short, missing = _trimmed(
        short, system, lambda row: measure.asked(row) <= max(room - answer, room // 2)
    )
    return short, lost | missing


def _trimmed(row: Row, system: int, fits: Callable[[Row], bool]) -> tuple[Row, Lost]:
    """A conversation that fits, and the parts that it lost: of the question, then of the system.

    system: the number of its system turns.
    """
    lost = Lost.NOTHING
    letters = sum(len(message["content"]) for message in row.messages[system:-1])
    if letters and not fits(row):
        row, lost = _longest(row, partial(_question, system), letters, fits), Lost.PROMPT
    letters = len(row.messages[0]["content"]) if system else 0
    if letters and not fits(row):
        row, lost = _longest(row, _system, letters, fits), lost | Lost.SYSTEM
    return row, lost


def _longest(
    row: Row, cut: Callable[[Row, int], Row], size: int, fits: Callable[[Row], bool]
) -> Row:
    """The row cut to the largest number of characters, below `size`, that fits."""
    return cut(row, most(size - 1, lambda count: fits(cut(row, count))))


def most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, 0 if 1 does not; small ones are tried first."""
    high = 1
    while high < limit and fits(high):
        high = min(2 * high, limit)
    return bisect_left(range(1, min(high, limit) + 1), True, key=lambda number: not fits(number))


def _opens(messages: tuple[Turn, ...], at: int) -> bool:
    """Tell if a conversation may begin at this turn: the first of a user's turns in a row."""
    return messages[at]["role"] == "user" and (not at or messages[at - 1]["role"] != "user")


def _question(system: int, row: Row, count: int) -> Row:
    """The conversation with only the last `count` characters before the answer."""
    cut: list[Turn] = []
    for message in reversed(row.messages[system:-1]):
        content = message["content"]
        end = content[max(len(content) - count, 0) :]
        count -= len(end)
        # A part of an answer is not learned.
        if end != content:
            [message] = unlearned([{**message, "content": end}])
        cut.append(message)
    return replace(row, messages=(*row.messages[:system], *reversed(cut), row.messages[-1]))


def _system(row: Row, count: int) -> Row:
    """The conversation with only the first `count` characters of its system turn."""
    first = row.messages[0]
    short = {**first, "content": first["content"][:count]}
    return replace(row, messages=(short, *row.messages[1:]))
