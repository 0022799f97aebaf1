"""Divide an experiment's rows among the server and the clients."""

import logging
from array import array
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from hanse.data import holdout, partitioning
from hanse.data.formats import label_spelling
from hanse.data.formats.row import Row
from hanse.data.tokenization.label_words import label_words
from hanse.data.tokenization.tags import tag_names
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.source_rows import Gathered, PublicRows, gather, public
from hanse.experiment.schema import Experiment, build_partitioner
from hanse.experiment.sections import Data
from hanse.journal import record_files
from hanse.journal.records import DIVISION, ClientRowCounts, DivisionRecord
from hanse.learners.models.sentence_encoder import embeddings
from hanse.randomness import RoundContext

log = logging.getLogger(__name__)

UNSEEN = (
    "if silos keep their files on their own machines, nobody can check whether rows that the "
    "server or a silo holds out are training rows of another silo."
)


@dataclass(frozen=True)
class FederatedDataset:
    """An experiment's rows: those that the server holds out, and those of each client."""

    validation: list[Row]
    test: list[Row]
    train: dict[str, list[Row]]  # by client, in client order
    held: dict[str, list[Row]]  # each client's own test rows
    labels: dict[str, str]  # label → word, or tag → name; empty without either
    digest: str  # of all rows as they were loaded
    remarks: tuple[str, ...] = ()  # on rows that are left out or cut, one sentence each
    public: PublicRows = field(default_factory=PublicRows)  # nobody's private rows


def divide(experiment: Experiment) -> FederatedDataset:
    """Load the rows, hold out test and validation rows, and divide the others; needs no model.

    A row that the server or a client holds out is no client's training row.
    """
    source = gather(experiment)
    remarks = [*source.remarks, *label_spelling.remarks(source.every, source.owners)]
    rows, validation, test = _held_out(source, experiment.data, remarks)
    by_client = _divided(experiment, rows, source.owners)
    train, held = _client_tests(experiment, by_client)
    copies = len(rows) - sum(map(len, (*train.values(), *held.values())))
    remarks += _left_out(copies, "training", "that clients hold out (data.client_test)")
    labels = _labels(source.every, train, experiment.data.labels)
    shared = public(experiment, remarks.append)
    remarks += in_public(shared, [*validation, *test])
    remarks = list(dict.fromkeys(remarks))  # one file may be read for several splits
    return FederatedDataset(
        validation, test, train, held, labels, source.digest, tuple(remarks), shared
    )


def in_public(public: PublicRows, held_out: list[Row]) -> list[str]:
    """A remark on held-out rows that are public rows, too: their scores may be too good."""
    copies = len(held_out) - len(holdout.without(held_out, public.rows))
    if not copies:
        return []
    rows = "1 held-out row is" if copies == 1 else f"{copies:,} held-out rows are"
    return [f"{rows} also in data.public; scores on what a model was taught may be too good."]


def _held_out(
    source: Gathered, data: Data, remarks: list[str]
) -> tuple[list[Row], list[Row], list[Row]]:
    """(train, validation, test): rows of their own files, or rows that are held out."""
    test = source.test or []
    validation = holdout.without(source.validation or [], test)
    copies = len(source.validation or []) - len(validation)
    remarks += _left_out(copies, "validation", "of the test file")
    rows = holdout.without(source.rows, [*validation, *test])
    if not rows:
        raise UserError(
            f"every training row is also in the files of data.test ({data.test}) or "
            f"data.validation ({data.validation}); name other files there, or a number of rows."
        )
    amounts = [0 if isinstance(size, str) else size for size in (data.test, data.validation)]
    train, *drawn = holdout.split(rows, amounts[0], amounts[1], data.split_seed)
    copies = len(source.rows) - len(train) - sum(map(len, drawn))
    remarks += _left_out(copies, "training", "that are held out for the test or for validation")
    if source.owners is not None and not any(drawn):
        train = rows  # the order of a client's rows must not depend on the other clients' rows
    return train, validation or drawn[0], test or drawn[1]


def _divided(
    experiment: Experiment, rows: list[Row], owners: dict[str, str] | None
) -> dict[str, list[Row]]:
    """The rows of each client: its own, or those that the partitioner gives it."""
    names = experiment.client_names
    if owners is None:
        partitioner = build_partitioner(experiment)
        encoded = _encoded(rows, partitioner.encoder)
        shares = partitioning.partition(
            encoded, len(names), partitioner, RoundContext(experiment.seed)
        )
    else:
        shares = [[row for row in rows if owners[row.place] == name] for name in names]
    by_client = dict(zip(names, shares, strict=True))
    for name, client_rows in by_client.items():
        if not client_rows:
            raise UserError(
                f"{name} has no rows left to train on; hold out fewer, or give it more."
            )
    return by_client


def _client_tests(
    experiment: Experiment, by_client: dict[str, list[Row]]
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """The training rows of each client, and the rows that it holds out, which nobody trains on."""
    train, held = {}, {}
    for name, rows in by_client.items():
        share = experiment.for_client(name).data.client_test
        context = RoundContext(experiment.seed, client=name)
        train[name], held[name] = holdout.hold_out(rows, share, context)
    all_held = [row for rows in held.values() for row in rows]
    for name, rows in train.items():
        train[name] = holdout.without(rows, all_held)
        if not train[name]:
            raise UserError(
                f"every training row of {name} is held out by another client, too; set "
                "data.client_test to 0, or remove repeated rows from the data."
            )
    return train, held


def _left_out(copies: int, what: str, of: str) -> list[str]:
    """A remark on rows that are not used, if there are any."""
    if not copies:
        return []
    rows = "1 row is" if copies == 1 else f"{copies:,} rows are"
    return [f"{rows} left out of {what}: the text or prompt is the same as in rows {of}."]


def _labels(rows: list[Row], train: dict[str, list[Row]], known: dict[str, str]) -> dict[str, str]:
    """The words of the labels of all rows, or the names of the tags that can be learned."""
    if rows[0].kind == "tagged":
        return tag_names((row for rows in train.values() for row in rows), known)
    labelled = [row for row in rows if row.label is not None]
    return label_words(labelled, known) if labelled else {}


def unseen(experiment: Experiment) -> tuple[str, ...]:
    """A remark if nobody can check that held-out rows are not training rows of a client."""
    data = experiment.data
    held = [experiment.for_client(name).data.client_test for name in experiment.client_names]
    held += [1 for size in (data.test, data.validation) if isinstance(size, str)]
    return (UNSEEN,) if experiment.brings_own_data and any(held) else ()


def table(division: FederatedDataset, experiment: Experiment) -> DivisionRecord:
    """The division among the clients that take part, in numbers."""
    held = len(division.validation), len(division.test)
    if not division.train:  # all rows are on other machines
        return DivisionRecord((), {}, *held, division.remarks)
    column = _column(division, experiment)
    words = division.labels if column == partitioning.LABEL else {}
    clients, all_values = {}, set(words)
    for name in experiment.participant_names:
        owners = experiment.client_names if experiment.data.pooled else [name]
        values = [_value(row, column) for owner in owners for row in division.train[owner]]
        all_values.update(values)
        train = Counter(words.get(value, value) for value in values)
        clients[name] = ClientRowCounts(
            dict(train), sum(len(division.held[owner]) for owner in owners)
        )
    labels = dict.fromkeys(words.get(value, value) for value in partitioning.ordered(all_values))
    shown = tuple(labels) if column else ()
    return DivisionRecord(shown, clients, *held, division.remarks)


def note(folder: Path, division: FederatedDataset, experiment: Experiment) -> None:
    """Write the table of a division into a run folder, and log its remarks."""
    for remark in division.remarks:
        log.warning("%s", remark)
    record_files.write(folder / DIVISION, table(division, experiment))


def _column(division: FederatedDataset, experiment: Experiment) -> str | None:
    """The column by which rows are counted: the label, or the column of the partitioner."""
    rows = next(iter(division.train.values()))
    if division.labels and rows[0].kind != "tagged":
        return partitioning.LABEL
    return None if experiment.brings_own_data else build_partitioner(experiment).goes_by()


def _value(row: Row, column: str | None) -> str:
    """A row's value in a column; "rows" without a column."""
    if column is None:
        return "rows"
    value = row.label if column == partitioning.LABEL else row.fields.get(column)
    return "(none)" if value is None else value


def _encoded(rows: list[Row], encoder: str | None) -> list[Row]:
    """Add each row's vector, if the partitioner has an encoder."""
    if encoder is None:
        return rows
    vectors = embeddings(encoder, [_text(row) for row in rows])
    # An array takes 4 bytes a number, a tuple of floats 32.
    return [
        replace(row, vector=array("f", vector.tobytes()))
        for row, vector in zip(rows, vectors, strict=True)
    ]


def _text(row: Row) -> str:
    """A row's text without system turns, which are often the same in all rows."""
    turns = [turn["content"] for turn in row.messages if turn["role"] != "system"]
    parts = (*turns, row.prompt, row.completion, row.chosen, row.text, row.text_pair)
    return "\n".join(part for part in parts if part)
