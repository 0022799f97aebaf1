"""System turns for chat templates that refuse them: merged into a question, or left out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from hanse.data.formats.row import Row
from hanse.data.formats.turns import Turn, turn

System = Literal["keep", "merge", "drop"]  # what becomes of system turns


def rows_with(rows: Iterable[Row], system: System, remark: Callable[[str], None]) -> list[Row]:
    """The rows with their system turns kept, merged into a question, or left out.

    remark: gets a sentence with the number of rows that lost a system turn.
    """
    result, changed = [], 0
    for row in rows:
        is_affected = system != "keep" and has_system(row.messages)
        changed += is_affected
        result.append(replace(row, messages=apply(row.messages, system)) if is_affected else row)
    if changed and system == "drop":
        remark(
            f"data.system drop leaves out the system turns of {changed:,} of {len(result):,} "
            "conversations; data.system: merge puts them before the first question."
        )
    return result


def has_system(messages: Sequence[Turn]) -> bool:
    """Tell if a conversation has a system turn."""
    return any(message["role"] == "system" for message in messages)


def apply(messages: Sequence[Turn], system: System) -> tuple[Turn, ...]:
    """The messages without system turns; merge: their text stands before the next question.

    After a question that is followed by no other one, the text stands behind that question.
    """
    result: list[Turn] = []
    waiting: list[str] = []  # the texts of system turns that belong to the next question
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            waiting += [content] if system == "merge" and content.strip() else []
        elif not waiting:
            result.append(message)
        elif role == "user":
            result.append({**message, "content": "\n\n".join((*waiting, content))})
            waiting = []
        elif result and result[-1]["role"] == "user":
            result[-1] = {**result[-1], "content": "\n\n".join((result[-1]["content"], *waiting))}
            result.append(message)
            waiting = []
        else:
            result += [turn("user", "\n\n".join(waiting)), message]
            waiting = []
    return tuple(result)
