"""From an experiment to the rows of the server and of each client."""

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hanse import storage
from hanse.data import corpora, partition, splits
from hanse.data.formats import Row
from hanse.data.labelled import label_words
from hanse.data.tagged import tag_names
from hanse.errors import UserError
from hanse.experiment import Experiment, build_partitioner
from hanse.learners.encoder import embeddings
from hanse.randomness import Moment

FILE = "division.json"


@dataclass(frozen=True)
class Division:
    """An experiment's rows: the server's held-out ones, and each client's."""

    validation: list[Row]
    test: list[Row]
    train: dict[str, list[Row]]  # by client, in client order
    held: dict[str, list[Row]]  # each client's own test rows
    labels: dict[str, str]  # label → word, or tag → name; empty without either
    digest: str  # of all rows as they were loaded: other rows would be divided otherwise


@dataclass(frozen=True)
class Holding:
    """How many rows one client trains on, by label or as "rows", and how many it holds out."""

    train: dict[str, int]
    held: int


@dataclass(frozen=True)
class Table:
    """Which rows lie where, in numbers, as division.json has them.

    labels: the words of the labels; without labels the values of the column that rows were divided
        by; empty if there is none either.
    """

    labels: list[str]
    clients: dict[str, Holding]
    validation: int
    test: int


def divide(experiment: Experiment) -> Division:
    """Load, hold out, partition; nothing of the model is needed yet."""
    if experiment.brings_own_data:
        rows, owners = _own_rows(experiment)
    else:
        rows = _rows(experiment)
        owners = None
    data = experiment.data
    train, validation, test = splits.split(rows, data.test, data.validation, data.split_seed)
    if owners is not None and not (validation or test):
        train = rows  # in which order a client has its rows must not hang on those of others
    names = experiment.client_names
    moment = Moment(experiment.seed)
    if owners is None:
        partitioner = build_partitioner(experiment)
        encoded = _encoded(train, partitioner.encoder)
        shares = partition.partition(encoded, len(names), partitioner, moment)
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
    return Division(validation, test, kept, held, _labels(rows, kept, data.labels), _digest(rows))


def _labels(rows: list[Row], train: dict[str, list[Row]], known: dict[str, str]) -> dict[str, str]:
    """The words of the labels of all rows, or the names of the tags that can be learned."""
    if rows[0].kind == "tagged":
        return tag_names((row for own in train.values() for row in own), known)
    labelled = [row for row in rows if row.label is not None]
    return label_words(labelled, known) if labelled else {}


def table(division: Division, experiment: Experiment) -> Table:
    """The division in numbers, as those who take part in the experiment hold it."""
    column = _column(division, experiment)
    words = division.labels if column == partition.LABEL else {}
    clients, found = {}, set(words)
    for name in experiment.participant_names:
        owners = experiment.client_names if experiment.data.pooled else [name]
        values = [_value(row, column) for owner in owners for row in division.train[owner]]
        found.update(values)
        train = Counter(words.get(value, value) for value in values)
        clients[name] = Holding(dict(train), sum(len(division.held[owner]) for owner in owners))
    labels = dict.fromkeys(words.get(value, value) for value in partition.ordered(found))
    return Table(
        list(labels) if column else [], clients, len(division.validation), len(division.test)
    )


def note(folder: Path, division: Division, experiment: Experiment) -> None:
    """Write the table of a division down in a run folder."""
    said = json.dumps(asdict(table(division, experiment)), ensure_ascii=False, indent=2)
    storage.write(folder / FILE, said.encode())


def kind(experiment: Experiment) -> str:
    """The kind of an experiment's rows: messages, completion, labelled, text."""
    own = experiment.brings_own_data
    first = experiment.for_client(experiment.client_names[0]) if own else experiment
    return _rows(first)[0].kind


def _column(division: Division, experiment: Experiment) -> str | None:
    """What a division is best counted by: the label, or what the partitioner goes by."""
    rows = next(iter(division.train.values()))
    if division.labels and rows[0].kind != "tagged":
        return partition.LABEL
    return None if experiment.brings_own_data else build_partitioner(experiment).goes_by()


def _value(row: Row, column: str | None) -> str:
    """A row's value in a column."""
    if column is None:
        return "rows"
    value = row.label if column == partition.LABEL else row.fields.get(column)
    return "(none)" if value is None else value


def _encoded(rows: list[Row], encoder: str | None) -> list[Row]:
    """The rows with their vectors, if there is an encoder to make them."""
    if encoder is None:
        return rows
    vectors = embeddings(encoder, [_said(row) for row in rows])
    # An array of 4 bytes a number; a tuple of floats would take 32.
    return [
        replace(row, vector=array("f", vector.tobytes()))
        for row, vector in zip(rows, vectors, strict=True)
    ]


def _said(row: Row) -> str:
    """What a row says, without what the system is told, which is often the same in all."""
    turns = [turn["content"] for turn in row.messages if turn["role"] != "system"]
    parts = (*turns, row.prompt, row.completion, row.chosen, row.text)
    return "\n".join(part for part in parts if part)


def _digest(rows: list[Row]) -> str:
    """A hash of what the rows say, wherever their file is."""
    found = hashlib.sha256()
    for row in rows:
        said = (row.messages, row.prompt, row.completion, row.text, row.label)
        pair: tuple[object, ...] = (row.words, row.tags) if row.kind == "tagged" else ()
        pair = (row.chosen, row.rejected) if row.kind == "preference" else pair
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
