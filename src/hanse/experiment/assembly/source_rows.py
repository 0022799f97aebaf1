"""The rows in an experiment's files, before some are held out and the others divided."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hanse.data.formats import column_remarks, system_turns
from hanse.data.formats.row import Row
from hanse.data.formats.turns import last_answer_only
from hanse.data.sources import corpora, files, folders, split_column
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.errors import StoppedError, UserError
from hanse.experiment.schema import (
    Experiment,
    build_objective,
    build_partitioner,
    build_tasks,
)
from hanse.experiment.sections import Data, PublicData

Remark = Callable[[str], None]  # takes a sentence on rows that are left out
Source = tuple[str, list[Row], Collection[str]]  # a path, its rows, and the columns in use


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
    rows = _rows(settings, settings.path, TRAIN, remark, judged(experiment), "data.public")
    _tell_columns([(settings.path, rows, settings.filter)], remark)
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
    rows = _rows(data, path, split, remark, judged(experiment))
    _tell_columns([(path, rows, _used(experiment, rows))], remark)
    return split_column.by_split(rows).get(split, rows) if path == data.path else rows


def kind(experiment: Experiment) -> str:
    """The kind of an experiment's rows: "messages" for conversations, "labelled" and others."""
    first = experiment
    if experiment.brings_own_data:
        first = experiment.for_client(experiment.client_names[0])
    row = _rows(first.data, first.data.path, TRAIN, lambda remark: None, judged=True)[0]
    return "messages" if row.messages else row.kind


def _training_rows(
    experiment: Experiment, remark: Remark
) -> tuple[list[Row], dict[str, str] | None]:
    """The rows of the one source, or those of all clients' sources with the owner of each row."""
    with_verdicts = judged(experiment)
    if not experiment.brings_own_data:
        data = experiment.data
        _tell_unused(data, data.test, data.validation, remark)
        _tell_beside(data, remark)
        rows = _rows(data, data.path, TRAIN, remark, with_verdicts)
        _tell_columns([(data.path, rows, _used(experiment, rows))], remark)
        return _of_training(data, rows, remark), None
    rows = []
    owners: dict[str, str] = {}
    sources: list[Source] = []
    for name in experiment.client_names:
        data = experiment.for_client(name).data
        _tell_unused(data, 0, 0, remark)
        client_rows = _rows(data, data.path, TRAIN, remark, with_verdicts)
        sources.append((data.path, client_rows, data.filter))
        for row in client_rows:
            placed = replace(row, place=f"{name}: {row.place}")
            owners[placed.place] = name
            rows.append(placed)
    _tell_columns(sources, remark)
    return rows, owners


def _of_training(data: Data, rows: list[Row], remark: Remark) -> list[Row]:
    """The rows for training, if a column names splits and the settings name the file for others.

    Otherwise they are all rows, and a remark says that those of other splits are among them.
    """
    splits = split_column.by_split(rows)
    if not splits:
        return rows
    held = {split for split in (TEST, VALIDATION) if getattr(data, split) == data.path}
    unused = [
        f"{len(splits[split]):,} for {split}" for split in splits if split not in (TRAIN, *held)
    ]
    column = split_column.column(rows)
    if held and unused:
        remark(f"{data.path}: not read: the rows whose {column} names {' and '.join(unused)}.")
    elif unused:
        others = " and ".join(f"data.{split}" for split in splits if split != TRAIN)
        remark(
            f"{data.path}: {column} names rows {' and '.join(unused)}, but all rows are trained "
            f"on; name the same file in {others} to score them instead."
        )
    return splits[TRAIN] if held else rows


def _used(experiment: Experiment, rows: list[Row]) -> set[str]:
    """The columns that tell splits, and those that the filter and the partitioner use."""
    own = experiment.brings_own_data
    dealt_by = None if own else build_partitioner(experiment).goes_by()
    columns = (dealt_by, split_column.column(rows))
    return {*experiment.data.filter, *(column for column in columns if column)}


def _tell_columns(sources: Iterable[Source], remark: Remark) -> None:
    """Remark on columns, once for all sources of which the same is true."""
    paths: dict[str, dict[str, None]] = {}
    for path, rows, used in sources:
        for sentence in column_remarks.remarks(rows, used):
            paths.setdefault(sentence, {})[path] = None
    for sentence, (first, *others) in paths.items():
        more = f" and {len(others)} more" if others else ""
        remark(f"{first}{more}: {sentence}")


def _tell_unused(
    data: Data, test: int | float | str, validation: int | float | str, remark: Remark
) -> None:
    """Remark on files beside the training files that are not read."""
    splits = files.splits(Path(data.path)) if data.path not in corpora.CORPORA else {}
    used = {TRAIN, *(s for s, v in ((TEST, test), (VALIDATION, validation)) if isinstance(v, str))}
    for split, unused in splits.items():
        if split in used:
            continue
        shown = folders.listed(unused, Path(data.path))
        why = f"data.{split} names none of them" if split else "they are named for no split"
        remark(f"{data.path}: training reads the training files only; {shown}: not read, {why}.")


def _tell_beside(data: Data, remark: Remark) -> None:
    """Remark on files for test and validation beside the training file that are not read."""
    if data.path in corpora.CORPORA:
        return
    unused = {
        split: path
        for split, path in files.beside(Path(data.path)).items()
        if not isinstance(getattr(data, split), str)
    }
    for split, path in unused.items():
        remark(
            f"{data.path}: {path.name} beside it is not read; data.{split}: {path} scores its rows "
            "in place of held-out ones."
        )


def _rows(
    data: Data | PublicData,
    path: str,
    split: str,
    remark: Remark,
    judged: bool,
    section: str = "data",
) -> list[Row]:
    """The rows of one data source that pass the filter.

    judged: answers that are marked as bad are rows, too. section: the settings' name.
    """
    with _errors_about(section):
        rows = corpora.load(
            path, data.columns, remark, split, judged, data.skip_invalid, data.encoding
        )
        rows = system_turns.rows_with(rows, data.system, remark)
    for column, value in data.filter.items():
        if not any(column in row.fields for row in rows):
            known = sorted({name for row in rows[:100] for name in row.fields})
            raise UserError(
                f"{section}.filter: {path} has no column {column!r}; it has {', '.join(known)}."
            )
        rows = [row for row in rows if row.fields.get(column) == value]
        if not rows:
            raise UserError(f"{section}.filter: no row of {path} has {column} {value!r}.")
    if isinstance(data, Data) and data.mask_history:
        rows = [replace(row, messages=last_answer_only(row.messages)) for row in rows]
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
