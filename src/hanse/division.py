"""From an experiment to the rows of the server and of each client."""

import hashlib
from dataclasses import dataclass, replace

from hanse.data import corpora, partition, splits
from hanse.data.formats import Row
from hanse.data.labelled import label_words
from hanse.errors import UserError
from hanse.experiment import Experiment, build_partitioner
from hanse.randomness import Moment


@dataclass(frozen=True)
class Division:
    """An experiment's rows: the server's held-out ones, and each client's."""

    validation: list[Row]
    test: list[Row]
    train: dict[str, list[Row]]  # by client, in client order
    held: dict[str, list[Row]]  # each client's own test rows
    labels: dict[str, str]  # label → word; empty without labels
    digest: str  # of all rows as they were loaded: other rows would be divided otherwise


def divide(experiment: Experiment) -> Division:
    """Load, hold out, partition; nothing of the model is needed yet."""
    if experiment.brings_own_data:
        rows, owners = _own_rows(experiment)
    else:
        rows = _rows(experiment)
        owners = None
    data = experiment.data
    train, validation, test = splits.split(rows, data.test, data.validation, data.split_seed)
    names = experiment.client_names
    moment = Moment(experiment.seed)
    if owners is None:
        shares = partition.partition(train, len(names), build_partitioner(experiment), moment)
    else:
        shares = [[row for row in train if owners[row.place] == name] for name in names]
    kept, held = {}, {}
    for name, share in zip(names, shares, strict=True):
        if not share:
            raise UserError(
                f"{name} has no rows left to train on; hold out fewer, or give it more."
            )
        part = experiment.for_client(name).data.client_test
        kept[name], held[name] = splits.hold_out(share, part, replace(moment, client=name))
    labelled = [row for row in rows if row.label is not None]
    labels = label_words(labelled, data.labels) if labelled else {}
    return Division(validation, test, kept, held, labels, _digest(rows))


def _digest(rows: list[Row]) -> str:
    """A hash of what the rows say, wherever their file is."""
    found = hashlib.sha256()
    for row in rows:
        said = (row.messages, row.prompt, row.completion, row.text, row.label)
        pair = (row.chosen, row.rejected) if row.kind == "preference" else ()
        found.update(repr(((*said, *pair), sorted(row.fields.items()))).encode())
    return found.hexdigest()


def _rows(experiment: Experiment) -> list[Row]:
    """The rows of one data source that pass its filter."""
    data = experiment.data
    rows = corpora.load(data.path, columns=data.columns)
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


def _own_rows(experiment: Experiment) -> tuple[list[Row], dict[str, str]]:
    """The rows of all clients that bring their own file, and whose each is, by its place."""
    rows: list[Row] = []
    owners: dict[str, str] = {}
    for name in experiment.client_names:
        for row in _rows(experiment.for_client(name)):
            mine = replace(row, place=f"{name}: {row.place}")
            owners[mine.place] = name
            rows.append(mine)
    return rows, owners
