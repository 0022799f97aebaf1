"""Hold rows out for validation and test, before the others are partitioned.

Held-out rows are distinct, and no row that is equal to one of them is trained on. Two rows are
equal if their text, their prompt or the messages before the last answer are the same up to case and
white space.
"""

import json
from collections.abc import Iterable, Sequence

from hanse.data.formats.row import Row
from hanse.data.formats.turns import CALLS, answers
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.randomness import RoundContext

with lazy_imports():
    import torch


def split(
    rows: Sequence[Row], test: int | float, validation: int | float, seed: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """Divide rows into (train, validation, test), each in an order drawn at random.

    test, validation: a share of the distinct rows (a float below 1), or a number of rows.
    Raises UserError if nothing would be left to train on.
    """
    groups = equal_rows(rows)
    num_test = _count(test, len(groups), "test")
    num_validation = _count(validation, len(groups), "validation")
    held = num_test + num_validation
    if held >= len(groups):
        raise UserError(
            f"test: {test} and validation: {validation} hold out {held} rows, but there are only "
            f"{len(groups)} distinct rows (of {len(rows)}), and at least 1 must remain for "
            "training; hold out fewer, or give more data."
        )
    generator = RoundContext(seed).generator("split")
    order = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    training = [i for group in order[held:] for i in group]
    shuffled = torch.randperm(len(training), generator=generator).tolist()
    return (
        [rows[training[i]] for i in shuffled],
        [_held(rows, group, generator) for group in order[num_test:held]],
        [_held(rows, group, generator) for group in order[:num_test]],
    )


def hold_out(
    rows: Sequence[Row], share: float, context: RoundContext
) -> tuple[list[Row], list[Row]]:
    """Divide one client's rows into (training rows, held-out rows).

    share: of the distinct rows. A positive one holds out at least one row if another remains. Both
        lists are in the order of `rows`.
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of rows to hold out is {share}; write 0 or more, below 1.")
    if not share:
        return list(rows), []
    groups = equal_rows(rows)
    count = min(_count(float(share), len(groups), "share"), max(len(groups) - 1, 0))
    generator = context.generator("hold out")
    order = torch.randperm(len(groups), generator=generator).tolist()
    chosen = [groups[i] for i in sorted(order[:count])]
    removed = {i for group in chosen for i in group}
    held = [_held(rows, group, generator) for group in chosen]
    return [row for i, row in enumerate(rows) if i not in removed], held


def without(rows: Sequence[Row], held: Iterable[Row]) -> list[Row]:
    """The rows that are equal to no held-out row, in their order."""
    removed = set(map(_key, held))
    return [row for row in rows if _key(row) not in removed] if removed else list(rows)


def _held(rows: Sequence[Row], group: Sequence[int], generator: "torch.Generator") -> Row:
    """The one of several equal rows that is held out: the first, or any one if verdicts differ.

    A file may list the good answers to a prompt first.
    """
    if len({rows[i].verdict for i in group}) == 1:
        return rows[group[0]]
    return rows[group[int(torch.randint(len(group), (), generator=generator))]]


def equal_rows(rows: Sequence[Row]) -> list[list[int]]:
    """The indices of equal rows, group by group in order of appearance."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_key(row), []).append(index)
    return list(groups.values())


def _key(row: Row) -> str:
    """The same text for equal rows: the input of a row, whatever answer or label follows it."""
    turns = answers(row.messages)
    # The messages of a preference are those before its two answers.
    read = row.messages if row.kind == "preference" else row.messages[: max(turns, default=0)]
    conversation = "\n".join(f"{message['role']}: {message['content']}" for message in read)
    if row.tools or any(CALLS in message for message in read):
        calls = [message.get(CALLS) for message in read]
        conversation += json.dumps([row.tools, calls])
    # Without the answer, all rows without a prompt would be equal.
    content = conversation or row.prompt.strip() or row.completion or row.chosen or row.text
    content += f"\n{row.text_pair}" if row.text_pair else ""
    return " ".join(content.casefold().split())


def _count(size: int | float, distinct: int, name: str) -> int:
    """The number of rows that a share of `distinct` rows, or a number of rows, stands for."""
    if isinstance(size, int) and size >= 0:
        return size
    if not 0 <= size < 1:
        raise UserError(f"{name} is {size}; write a share below 1, or a whole number of rows.")
    return max(1, round(size * distinct)) if size else 0
