"""Rows of a comparison, each kept as soon as the runs of all its seeds are done."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from many_runs import Task, Workers
from protocol import Kept, Row, fingerprint

DIVERGED: Row = {"no_result": "diverged on one of the deals"}


def finish(
    plan: Mapping[str, Sequence[Task]],
    kept: Kept,
    workers: Workers,
    line: Callable[[str, Sequence[Task]], Row],
    beside: Callable[[Mapping[str, Row]], None],
    order: Iterable[str],
) -> None:
    """Finish the rows of a plan that are not kept yet.

    plan: the runs of each row. line: a row from its name and its finished runs. beside: notes in
    all rows that there are how they stand to each other. order: the names of all rows, as they are
    shown.
    """
    left = {name: t for name, t in plan.items() if not kept.row(fingerprint(*t), "rows", name)}
    for name in workers.groups(left):
        tasks = left[name]
        row = line(name, tasks) if all(task.finished for task in tasks) else DIVERGED
        kept.put(row, fingerprint(*tasks), "rows", name)
        rows = kept.content["rows"]
        kept.content["rows"] = {each: rows[each] for each in order if each in rows}
        beside(kept.content["rows"])
        kept.write()
