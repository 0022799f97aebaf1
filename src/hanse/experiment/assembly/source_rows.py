"""The rows that an experiment's files hold, before any are held out or divided."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.data.formats.row import Row
from hanse.data.sources import corpora, files
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import Data

Remark = Callable[[str], None]  # takes a sentence on what is left out
SHOWN = 3  # most files that a remark names


@dataclass(frozen=True)
class Gathered:
    """What was read.

    rows: those to train on, and to hold out from what no file is named for.
    validation, test: those of files of their own; None where a number of rows is to be held out.
    owners: whose each row is, by its place; None if rows are dealt to clients.
    remarks: what was left out, one sentence each.
    """

    rows: list[Row]
    validation: list[Row] | None
    test: list[Row] | None
    owners: dict[str, str] | None
    remarks: list[str]

    @property
    def every(self) -> list[Row]:
        """All rows, whatever they are for."""
        return [*self.rows, *(self.validation or []), *(self.test or [])]

    @property
    def digest(self) -> str:
        """A hash of what the rows say, wherever their files are."""
        found = hashlib.sha256()
        for row in self.every:
            said = (row.messages, row.prompt, row.completion, row.text, row.label)
            pair: tuple[object, ...] = (row.words, row.tags) if row.kind == "tagged" else ()
            pair = (row.chosen, row.rejected) if row.kind == "preference" else pair
            found.update(repr(((*said, *pair), sorted(row.fields.items()))).encode())
        return found.hexdigest()


def gather(experiment: Experiment) -> Gathered:
    """All rows of an experiment: of one source, or of each client's own, and of test files."""
    remarks: list[str] = []
    rows, owners = _training_rows(experiment, remarks.append)
    validation, test = (
        official(experiment.data, split, remarks.append) for split in (VALIDATION, TEST)
    )
    return Gathered(rows, validation, test, owners, remarks)


def official(data: Data, split: str, remark: Remark) -> list[Row] | None:
    """The rows of the file that is named for a split; None if none is."""
    path = getattr(data, split)
    return _rows(data, path, split, remark) if isinstance(path, str) else None


def kind(experiment: Experiment) -> str:
    """The kind of an experiment's rows: messages, completion, labelled, text."""
    own = experiment.brings_own_data
    first = experiment.for_client(experiment.client_names[0]) if own else experiment
    return _rows(first.data, first.data.path, TRAIN, lambda remark: None)[0].kind


def _training_rows(
    experiment: Experiment, remark: Remark
) -> tuple[list[Row], dict[str, str] | None]:
    """The rows of the one source, or those of all clients' own with whose each is."""
    if not experiment.brings_own_data:
        data = experiment.data
        _tell_unused(data, data.test, data.validation, remark)
        return _rows(data, data.path, TRAIN, remark), None
    rows: list[Row] = []
    owners: dict[str, str] = {}
    for name in experiment.client_names:
        data = experiment.for_client(name).data
        _tell_unused(data, 0, 0, remark)
        for row in _rows(data, data.path, TRAIN, remark):
            mine = replace(row, place=f"{name}: {row.place}")
            owners[mine.place] = name
            rows.append(mine)
    return rows, owners


def _tell_unused(
    data: Data, test: int | float | str, validation: int | float | str, remark: Remark
) -> None:
    """Say which files beside those for training are not read."""
    found = files.splits(Path(data.path)) if data.path not in corpora.CORPORA else {}
    used = {TRAIN, *(s for s, v in ((TEST, test), (VALIDATION, validation)) if isinstance(v, str))}
    for split, unused in found.items():
        if split in used:
            continue
        names = [path.relative_to(data.path).as_posix() for path in unused]
        shown = ", ".join(names[:SHOWN]) + (
            f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
        )
        why = f"data.{split} names none of them" if split else "they are named for no split"
        remark(
            f"of {data.path} the files named for training are learned; {shown}: not read, {why}."
        )


def _rows(data: Data, path: str, split: str, remark: Remark) -> list[Row]:
    """The rows of one data source that pass the filter."""
    rows = corpora.load(path, columns=data.columns, remark=remark, split=split)
    for column, value in data.filter.items():
        if not any(column in row.fields for row in rows):
            known = sorted({name for row in rows[:100] for name in row.fields})
            raise UserError(
                f"data.filter: {path} has no column {column!r}; it has {', '.join(known)}."
            )
        rows = [row for row in rows if row.fields.get(column) == value]
        if not rows:
            raise UserError(f"data.filter: no row of {path} has {column} {value!r}.")
    return rows
