"""Holds examples out for validation and test, before anything is partitioned.

What is held out is distinct, and none of it stays in what is trained on: two rows count as one if
their text, their prompt or the messages before the last answer are equal up to case and white
space.
"""

from collections.abc import Iterable, Sequence

import torch

from hanse.data.formats.row import Row
from hanse.data.formats.turns import answers
from hanse.errors import UserError
from hanse.randomness import RoundContext


def split(
    rows: Sequence[Row], test: int | float, validation: int | float, seed: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """(train, validation, test), each in an order drawn at random.

    test, validation: a share of the distinct rows (a float below 1), or a number of rows.
    Raises UserError if nothing would be left to train on.
    """
    groups = _groups(rows)
    num_test = _count(test, len(groups), "test")
    num_validation = _count(validation, len(groups), "validation")
    held = num_test + num_validation
    if held >= len(groups):
        raise UserError(
            f"test: {test} and validation: {validation} hold out {held} rows, but only "
            f"{len(groups)} distinct ones came ({len(rows)} rows), and at least 1 must remain to "
            "train on; hold out fewer, or give more data."
        )
    generator = RoundContext(seed).generator("split")
    order = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    rest = [i for group in order[held:] for i in group]
    shuffled = torch.randperm(len(rest), generator=generator).tolist()
    return (
        [rows[rest[i]] for i in shuffled],
        [rows[group[0]] for group in order[num_test:held]],
        [rows[group[0]] for group in order[:num_test]],
    )


def hold_out(
    rows: Sequence[Row], share: float, context: RoundContext
) -> tuple[list[Row], list[Row]]:
    """(kept, held): a share of one client's distinct rows for its own test.

    A positive share holds out at least one row if another one is left; kept rows stay in order.
    """
    if not 0 <= share < 1:
        raise UserError(f"a share to hold out came as {share}; it is at least 0 and below 1.")
    if not share:
        return list(rows), []
    groups = _groups(rows)
    count = min(_count(float(share), len(groups), "share"), max(len(groups) - 1, 0))
    order = torch.randperm(len(groups), generator=context.generator("hold out")).tolist()
    chosen = [groups[i] for i in sorted(order[:count])]
    gone = {i for group in chosen for i in group}
    return [row for i, row in enumerate(rows) if i not in gone], [rows[g[0]] for g in chosen]


def without(rows: Sequence[Row], held: Iterable[Row]) -> list[Row]:
    """The rows that say something else than all those that are held out, in their order."""
    gone = set(map(_key, held))
    return [row for row in rows if _key(row) not in gone] if gone else list(rows)


def _groups(rows: Sequence[Row]) -> list[list[int]]:
    """The indices of equal rows, group by group in order of appearance."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_key(row), []).append(index)
    return list(groups.values())


def _key(row: Row) -> str:
    """What makes two rows one: what is read, whatever answer or label follows it."""
    turns = answers(row.messages)
    # Of a preference, the messages are what comes before its two answers.
    read = row.messages if row.kind == "preference" else row.messages[: max(turns, default=0)]
    talk = "\n".join(f"{message['role']}: {message['content']}" for message in read)
    # Rows without a prompt would otherwise all be one.
    content = talk or row.prompt.strip() or row.completion or row.chosen or row.text
    return " ".join(content.casefold().split())


def _count(size: int | float, distinct: int, name: str) -> int:
    if isinstance(size, int) and size >= 0:
        return size
    if not 0 <= size < 1:
        raise UserError(f"{name} came as {size}; write a share below 1, or a whole number of rows.")
    return max(1, round(size * distinct)) if size else 0
