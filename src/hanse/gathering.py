"""The rows that an experiment's files hold, before any are held out or divided."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from hanse.data import corpora
from hanse.data.formats import Row
from hanse.errors import UserError
from hanse.experiment import Experiment

Remark = Callable[[str], None]  # takes a sentence on what is left out


@dataclass(frozen=True)
class Gathered:
    """What was read.

    rows: those to train on and to hold out from.
    owners: whose each row is, by its place; None if rows are dealt to clients.
    remarks: what was left out, one sentence each.
    """

    rows: list[Row]
    owners: dict[str, str] | None
    remarks: list[str]

    @property
    def digest(self) -> str:
        """A hash of what the rows say, wherever their files are."""
        found = hashlib.sha256()
        for row in self.rows:
            said = (row.messages, row.prompt, row.completion, row.text, row.label)
            pair: tuple[object, ...] = (row.words, row.tags) if row.kind == "tagged" else ()
            pair = (row.chosen, row.rejected) if row.kind == "preference" else pair
            found.update(repr(((*said, *pair), sorted(row.fields.items()))).encode())
        return found.hexdigest()


def gather(experiment: Experiment) -> Gathered:
    """All rows of an experiment, of one source or of each client's own."""
    remarks: list[str] = []
    if experiment.brings_own_data:
        rows, owners = _own_rows(experiment, remarks.append)
        return Gathered(rows, owners, remarks)
    return Gathered(_rows(experiment, remarks.append), None, remarks)


def kind(experiment: Experiment) -> str:
    """The kind of an experiment's rows: messages, completion, labelled, text."""
    own = experiment.brings_own_data
    first = experiment.for_client(experiment.client_names[0]) if own else experiment
    return _rows(first, lambda remark: None)[0].kind


def _rows(experiment: Experiment, remark: Remark) -> list[Row]:
    """The rows of one data source that pass its filter."""
    data = experiment.data
    rows = corpora.load(data.path, columns=data.columns, remark=remark)
    for column, value in data.where.items():
        if not any(column in row.fields for row in rows):
            known = sorted({name for row in rows[:100] for name in row.fields})
            raise UserError(
                f"data.where: {data.path} has no column {column!r}; it has {', '.join(known)}."
            )
        rows = [row for row in rows if row.fields.get(column) == value]
        if not rows:
            raise UserError(f"data.where: no row of {data.path} has {column} {value!r}.")
    return rows


def _own_rows(experiment: Experiment, remark: Remark) -> tuple[list[Row], dict[str, str]]:
    """The rows of all clients that bring their own file, and whose each is, by its place."""
    rows: list[Row] = []
    owners: dict[str, str] = {}
    for name in experiment.client_names:
        for row in _rows(experiment.for_client(name), remark):
            mine = replace(row, place=f"{name}: {row.place}")
            owners[mine.place] = name
            rows.append(mine)
    return rows, owners
