"""From an experiment to the rows of the server and of each client."""

import logging
from array import array
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.data import holdout, partitioning
from hanse.data.formats.row import Row
from hanse.data.tokenization.label_words import label_words
from hanse.data.tokenization.tags import tag_names
from hanse.errors import UserError
from hanse.experiment.assembly.source_rows import Gathered, gather
from hanse.experiment.schema import Experiment, build_partitioner
from hanse.experiment.sections import Data
from hanse.journal import record_files
from hanse.journal.records import DIVISION, ClientRowCounts, DivisionRecord
from hanse.learners.models.sentence_encoder import embeddings
from hanse.randomness import RoundContext

log = logging.getLogger(__name__)

UNSEEN = (
    "where silos keep their files on machines of their own, nobody sees whether rows that the "
    "server or a silo holds out are training rows of another silo."
)


@dataclass(frozen=True)
class FederatedDataset:
    """An experiment's rows: the server's held-out ones, and each client's."""

    validation: list[Row]
    test: list[Row]
    train: dict[str, list[Row]]  # by client, in client order
    held: dict[str, list[Row]]  # each client's own test rows
    labels: dict[str, str]  # label → word, or tag → name; empty without either
    digest: str  # of all rows as they were loaded: other rows would be divided otherwise
    remarks: tuple[str, ...] = ()  # which rows are left out or cut, one sentence each


def divide(experiment: Experiment) -> FederatedDataset:
    """Load, hold out, partition; nothing of the model is needed yet.

    What anybody holds out is nobody's training row.
    """
    found = gather(experiment)
    remarks = list(found.remarks)
    train, validation, test = _held_out(found, experiment.data, remarks)
    shares = _dealt(experiment, train, found.owners)
    kept, held = _own_tests(experiment, shares)
    copies = len(train) - sum(map(len, (*kept.values(), *held.values())))
    remarks += _left_out(copies, "training", "that clients hold out (data.client_test)")
    labels = _labels(found.every, kept, experiment.data.labels)
    return FederatedDataset(validation, test, kept, held, labels, found.digest, tuple(remarks))


def _held_out(
    found: Gathered, data: Data, remarks: list[str]
) -> tuple[list[Row], list[Row], list[Row]]:
    """(train, validation, test): what files of their own hold, or what is held out of the rows."""
    test, validation = found.test or [], holdout.without(found.validation or [], found.test or [])
    copies = len(found.validation or []) - len(validation)
    remarks += _left_out(copies, "validation", "of the test file")
    rows = holdout.without(found.rows, [*validation, *test])
    if not rows:
        raise UserError(
            f"every row to train on is in the files of data.test ({data.test}) or data.validation "
            f"({data.validation}), too; name other files there, or how many rows to hold out."
        )
    amounts = [0 if isinstance(size, str) else size for size in (data.test, data.validation)]
    train, *drawn = holdout.split(rows, amounts[0], amounts[1], data.split_seed)
    copies = len(found.rows) - len(train) - sum(map(len, drawn))
    remarks += _left_out(copies, "training", "that are held out for the test or for validation")
    if found.owners is not None and not any(drawn):
        train = rows  # in which order a client has its rows must not hang on those of others
    return train, validation or drawn[0], test or drawn[1]


def _dealt(
    experiment: Experiment, rows: list[Row], owners: dict[str, str] | None
) -> dict[str, list[Row]]:
    """Each client's rows: its own, or those that the partitioner gives it."""
    names = experiment.client_names
    if owners is None:
        partitioner = build_partitioner(experiment)
        encoded = _encoded(rows, partitioner.encoder)
        shares = partitioning.partition(
            encoded, len(names), partitioner, RoundContext(experiment.seed)
        )
    else:
        shares = [[row for row in rows if owners[row.place] == name] for name in names]
    found = dict(zip(names, shares, strict=True))
    for name, share in found.items():
        if not share:
            raise UserError(
                f"{name} has no rows left to train on; hold out fewer, or give it more."
            )
    return found


def _own_tests(
    experiment: Experiment, shares: dict[str, list[Row]]
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """What each client trains on, and what it holds out for itself: a training row of nobody."""
    kept, held = {}, {}
    for name, share in shares.items():
        part = experiment.for_client(name).data.client_test
        context = RoundContext(experiment.seed, client=name)
        kept[name], held[name] = holdout.hold_out(share, part, context)
    every = [row for own in held.values() for row in own]
    for name, own in kept.items():
        kept[name] = holdout.without(own, every)
        if not kept[name]:
            raise UserError(
                f"every row that {name} would train on is held out by another client, too; set "
                "data.client_test to 0, or remove repeated rows from the data."
            )
    return kept, held


def _left_out(copies: int, what: str, of: str) -> list[str]:
    """A remark on rows that nobody uses, if there are any."""
    if not copies:
        return []
    rows = "1 row is" if copies == 1 else f"{copies:,} rows are"
    return [f"{rows} left out of {what}: the text or prompt is the same as in rows {of}."]


def _labels(rows: list[Row], train: dict[str, list[Row]], known: dict[str, str]) -> dict[str, str]:
    """The words of the labels of all rows, or the names of the tags that can be learned."""
    if rows[0].kind == "tagged":
        return tag_names((row for own in train.values() for row in own), known)
    labelled = [row for row in rows if row.label is not None]
    return label_words(labelled, known) if labelled else {}


def unseen(experiment: Experiment) -> tuple[str, ...]:
    """A remark if nobody can see whether what one client holds out is another's training row."""
    data = experiment.data
    held = [experiment.for_client(name).data.client_test for name in experiment.client_names]
    held += [1 for size in (data.test, data.validation) if isinstance(size, str)]
    return (UNSEEN,) if experiment.brings_own_data and any(held) else ()


def table(division: FederatedDataset, experiment: Experiment) -> DivisionRecord:
    """The division in numbers, as those who take part in the experiment hold it."""
    held = len(division.validation), len(division.test)
    if not division.train:  # all of it is on other machines
        return DivisionRecord((), {}, *held, division.remarks)
    column = _column(division, experiment)
    words = division.labels if column == partitioning.LABEL else {}
    clients, found = {}, set(words)
    for name in experiment.participant_names:
        owners = experiment.client_names if experiment.data.pooled else [name]
        values = [_value(row, column) for owner in owners for row in division.train[owner]]
        found.update(values)
        train = Counter(words.get(value, value) for value in values)
        clients[name] = ClientRowCounts(
            dict(train), sum(len(division.held[owner]) for owner in owners)
        )
    labels = dict.fromkeys(words.get(value, value) for value in partitioning.ordered(found))
    shown = tuple(labels) if column else ()
    return DivisionRecord(shown, clients, *held, division.remarks)


def note(folder: Path, division: FederatedDataset, experiment: Experiment) -> None:
    """Write the table of a division down in a run folder, and say what is left out."""
    for remark in division.remarks:
        log.warning("%s", remark)
    record_files.write(folder / DIVISION, table(division, experiment))


def _column(division: FederatedDataset, experiment: Experiment) -> str | None:
    """What a division is best counted by: the label, or what the partitioner goes by."""
    rows = next(iter(division.train.values()))
    if division.labels and rows[0].kind != "tagged":
        return partitioning.LABEL
    return None if experiment.brings_own_data else build_partitioner(experiment).goes_by()


def _value(row: Row, column: str | None) -> str:
    """A row's value in a column."""
    if column is None:
        return "rows"
    value = row.label if column == partitioning.LABEL else row.fields.get(column)
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
