"""The rows in an experiment's files, before some are held out and the others divided."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hanse.data.formats import system_turns
from hanse.data.formats.cells import listed
from hanse.data.formats.row import Row
from hanse.data.formats.turns import last_answer_only
from hanse.data.sources import corpora, split_column
from hanse.data.sources.readers.class_names import ClassSettings
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.errors import StoppedError, UserError
from hanse.experiment.assembly.dataset import source_remarks
from hanse.experiment.assembly.dataset.source_remarks import Remark, Source
from hanse.experiment.schema import (
    Experiment,
    build_objective,
    build_tasks,
)
from hanse.experiment.sections import Data, PublicData


@dataclass(frozen=True)
class Gathered:
    """The rows of all files.

    rows: rows to train on, from which splits without a file of their own are held out.
    validation, test: rows of files of their own; None if they are held out from `rows`.
    owners: the client of each row, by the row's place; None if the rows are divided among clients.
    remarks: on rows that are left out, one sentence each.
    """

    rows: list[Row]
    validation: list[Row] | None
    test: list[Row] | None
    owners: dict[str, str] | None
    remarks: list[str]

    @property
    def every(self) -> list[Row]:
        """The rows of all splits."""
        return [*self.rows, *(self.validation or []), *(self.test or [])]

    @property
    def digest(self) -> str:
        """A hash of the rows' contents, which does not depend on the files' places."""
        return digest(self.every)


@dataclass(frozen=True)
class PublicRows:
    """The rows of `data.public`, and their hash; empty without such a data set."""

    rows: list[Row] = field(default_factory=list)
    digest: str = ""


def digest(rows: Iterable[Row]) -> str:
    """A hash of the contents of rows, which does not depend on the files' places."""
    digest = hashlib.sha256()
    for row in rows:
        texts = (row.messages, row.prompt, row.completion, row.text, row.label)
        pair: tuple[object, ...] = (row.words, row.tags) if row.kind == "tagged" else ()
        pair = (row.chosen, row.rejected) if row.kind == "preference" else pair
        calls = row.chosen_calls, row.rejected_calls
        pair = (*pair, *calls) if any(calls) else pair
        pair = (*pair, row.tools) if row.tools else pair
        pair = (*pair, row.text_pair) if row.text_pair else pair
        digest.update(repr(((*texts, *pair), sorted(row.fields.items()))).encode())
    return digest.hexdigest()


def gather(experiment: Experiment) -> Gathered:
    """Read all rows of an experiment: its source or its clients' sources, and other splits."""
    remarks: list[str] = []
    rows, owners = _training_rows(experiment, remarks.append)
    validation, test = (official(experiment, split, remarks.append) for split in (VALIDATION, TEST))
    return Gathered(rows, validation, test, owners, remarks)


def judged(experiment: Experiment) -> bool:
    """True if the objective or a task reads verdicts on answers, bad ones among them."""
    tasks = build_tasks(experiment).values()
    kinds = (build_objective(experiment).example_kind, *(task.example_kind for task in tasks))
    return "verdicts" in kinds


def public(experiment: Experiment, remark: Remark) -> PublicRows:
    """The rows of `data.public`; raises UserError if `sha256` there names other rows."""
    if (settings := experiment.data.public) is None:
        return PublicRows()
    rows = read(experiment, settings.path, TRAIN, remark, judged(experiment), settings)
    template = settings.template or experiment.data.template
    used = source_remarks.used(rows, settings.filter, [template])
    source_remarks.columns([(settings.path, rows, used)], remark)
    source_remarks.splits_in_use(settings.path, rows, "public", "data.public.filter: {}", remark)
    content = digest(rows)
    if settings.sha256 not in (None, content):
        raise UserError(
            f"the rows of {settings.path} have the hash {content}, and data.public.sha256 is "
            f"{settings.sha256}; bring the same rows, or correct the hash."
        )
    return PublicRows(rows, content)


def official(experiment: Experiment, split: str, remark: Remark) -> list[Row] | None:
    """The rows of the file that an experiment names for a split; None if it names no file."""
    data, path = experiment.data, getattr(experiment.data, split)
    if not isinstance(path, str):
        return None
    rows = read(experiment, path, split, remark, judged(experiment))
    used = source_remarks.used_by_all(experiment, rows, split)
    source_remarks.columns([(path, rows, used)], remark)
    return _of_split(data, rows, split, remark)


def _of_split(data: Data, rows: list[Row], split: str, remark: Remark) -> list[Row]:
    """The rows of the file of a split, without those that a column names for other splits.

    Raises UserError if the column names none for the split.
    """
    path, splits = getattr(data, split), split_column.by_split(rows, split)
    if not splits:
        return rows
    column = split_column.column(rows, split)
    if split not in splits:
        raise UserError(
            f"data.{split} names {path}, whose column {column} has rows for {' and '.join(splits)} "
            "only; name another file there, or the number of rows to hold out."
        )
    read = {name for name in (TEST, VALIDATION) if getattr(data, name) == path}
    read |= {TRAIN} if path == data.path else set()
    if unread := {name: held for name, held in splits.items() if name not in read}:
        remark(f"{path}: not read: the rows whose {column} names {split_column.counts(unread)}.")
    return splits[split]


def kind(experiment: Experiment) -> str:
    """The kind of an experiment's rows: "messages" for conversations, "labelled" and others."""
    first = experiment
    if experiment.brings_own_data:
        first = experiment.for_client(experiment.client_names[0])
    row = read(first, first.data.path, TRAIN, lambda remark: None, judged=True)[0]
    return "messages" if row.messages else row.kind


def _training_rows(
    experiment: Experiment, remark: Remark
) -> tuple[list[Row], dict[str, str] | None]:
    """The rows of the one source, or those of all clients' sources with the owner of each row."""
    with_verdicts = judged(experiment)
    if not experiment.brings_own_data:
        data = experiment.data
        source_remarks.unread_files(data, (TEST, VALIDATION), remark)
        rows = read(experiment, data.path, TRAIN, remark, with_verdicts)
        used = source_remarks.used_by_all(experiment, rows)
        source_remarks.columns([(data.path, rows, used)], remark)
        return _of_training(data, rows, remark), None
    rows = []
    owners: dict[str, str] = {}
    sources: list[Source] = []
    for name in experiment.client_names:
        client = experiment.for_client(name)
        data = client.data
        source_remarks.unread_files(data, (), remark)
        client_rows = read(client, data.path, TRAIN, remark, with_verdicts)
        keeps = "data.filter: {} of this client"
        source_remarks.splits_in_use(data.path, client_rows, "trained on", keeps, remark)
        used = source_remarks.used(client_rows, data.filter, [data.template])
        sources.append((data.path, client_rows, used))
        for row in client_rows:
            placed = replace(row, place=f"{name}: {row.place}")
            owners[placed.place] = name
            rows.append(placed)
    source_remarks.columns(sources, remark)
    return rows, owners


def _of_training(data: Data, rows: list[Row], remark: Remark) -> list[Row]:
    """The rows for training, if a column names splits and the settings name the file for others.

    Otherwise they are all rows, and a remark says that those of other splits are among them.
    """
    splits = split_column.by_split(rows)
    if not splits:
        return rows
    held = {split for split in (TEST, VALIDATION) if getattr(data, split) == data.path}
    others = {split: held_rows for split, held_rows in splits.items() if split != TRAIN}
    if held:  # a remark on the file for them names the splits that are not read
        return splits[TRAIN]
    settings = " and ".join(f"data.{split}" for split in others)
    remark(
        f"{data.path}: {split_column.column(rows)} names rows {split_column.counts(others)}, but "
        f"all rows are trained on; name the same file in {settings} to score them instead."
    )
    return rows


def read(
    experiment: Experiment,
    path: str,
    split: str,
    remark: Remark,
    judged: bool,
    public: PublicData | None = None,
) -> list[Row]:
    """The rows of one source that pass the filter, as the settings of `data` read them.

    judged: answers that are marked as bad are rows, too.
    public: the settings of the source, if it is `data.public`.
    """
    data, section = public or experiment.data, "data.public" if public else "data"
    with _errors_about(section):
        rows = corpora.load(
            path,
            data.columns,
            remark,
            split,
            judged,
            data.skip_invalid,
            data.encoding,
            ClassSettings(experiment.data.labels, data.filter),
        )
        rows = system_turns.rows_with(rows, data.system, remark)
    rows = _filtered(rows, data.filter, path, section)
    if experiment.data.mask_history and not public:
        rows = [replace(row, messages=last_answer_only(row.messages)) for row in rows]
    return rows


def _filtered(rows: list[Row], filter: Mapping[str, str], path: str, section: str) -> list[Row]:
    """The rows whose columns have the values of a filter; raises UserError if there are none."""
    for column, value in filter.items():
        if not any(column in row.fields for row in rows):
            known = sorted({name for row in rows[:100] for name in row.fields})
            raise UserError(
                f"{section}.filter: {path} has no column {column!r}; it has {', '.join(known)}."
            )
        values = [row.fields.get(column, "(none)") for row in rows]
        rows = [row for row in rows if row.fields.get(column) == value]
        if not rows:
            raise UserError(
                f"{section}.filter: no row of {path} has {column} {value!r:.200}; it has "
                f"{listed(dict.fromkeys(values))}."
            )
    return rows


@contextmanager
def _errors_about(section: str) -> Iterator[None]:
    """Name settings of `data` by their section in an error about a file; readers say `data`."""
    try:
        yield
    except StoppedError:
        raise
    except UserError as error:
        if section == "data":
            raise
        sentence = re.sub(
            r"\bdata\.(columns|skip_invalid|encoding)\b", rf"{section}.\1", str(error)
        )
        raise UserError(sentence) from error
