"""Remarks on the files and columns of a source that nothing uses."""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from hanse.data.formats import column_remarks
from hanse.data.formats.row import Row
from hanse.data.sources import corpora, files, folders, split_column
from hanse.data.sources.split_files import TRAIN
from hanse.data.tokenization.prompt_template import parse
from hanse.experiment.schema import Experiment, build_partitioner
from hanse.experiment.sections import Data

Remark = Callable[[str], None]  # takes a sentence on rows, files or columns that are left out
Source = tuple[str, list[Row], Collection[str]]  # a path, its rows, and the columns in use

OWN_TEST = "a client's own test rows are held out of its training file (data.client_test)"


def columns(sources: Iterable[Source], remark: Remark) -> None:
    """Remark on columns, with one sentence for all sources that have the same unused columns."""
    paths: dict[str, dict[str, None]] = {}
    for path, rows, used in sources:
        for sentence in column_remarks.remarks(rows, used):
            paths.setdefault(sentence, {})[path] = None
    for sentence, (first, *others) in paths.items():
        more = f" and {len(others)} more" if others else ""
        remark(f"{first}{more}: {sentence}")


def used(rows: Sequence[Row], filter: Iterable[str], templates: Iterable[str]) -> set[str]:
    """The columns that tell splits, and those that the filter and the templates name.

    Only labelled rows have a template.
    """
    column = split_column.column(rows)
    is_filled = rows[0].kind == "labelled"
    fields = {field for text in templates if is_filled for field in parse(text).fields}
    return {*filter, *([column] if column else []), *fields}


def used_by_all(experiment: Experiment, rows: Sequence[Row], split: str = TRAIN) -> set[str]:
    """The columns in use in a file that all clients share, those of every template among them.

    If clients have files of their own, no partitioner divides rows. split: that the file is for.
    """
    data, dealt_by = experiment.data, None
    templates = {data.template}
    if not experiment.brings_own_data:
        templates |= {experiment.for_client(name).data.template for name in experiment.clients}
        dealt_by = build_partitioner(experiment).goes_by()
    columns = (dealt_by, split_column.column(rows, split))
    return {*used(rows, data.filter, templates), *filter(None, columns)}


def unread_files(data: Data, held: Collection[str], remark: Remark) -> None:
    """Remark on the files beside the training files that are not read.

    held: the splits that may have a file of their own; () for the rows of one client.
    """
    if data.path in corpora.CORPORA:
        return
    path = Path(data.path)
    for split, paths in files.splits(path).items():
        if split == TRAIN or (split and _is_named(data, split, data.path, held)):
            continue
        why = f"data.{split} names none of them" if held else OWN_TEST
        why = why if split else "they are named for no split"
        shown = folders.listed(paths, path)
        remark(f"{data.path}: training reads the training files only; {shown}: not read, {why}.")
    for split, file in files.beside(path).items():
        if _is_named(data, split, str(file), held):
            continue
        advice = f"data.{split}: {file} scores its rows in place of held-out ones"
        remark(f"{data.path}: {file.name} beside it is not read; {advice if held else OWN_TEST}.")


def splits_in_use(path: str, rows: Sequence[Row], use: str, setting: str, remark: Remark) -> None:
    """Remark on rows of other splits in a file of which all rows are used.

    use: of all rows, such as "trained on". setting: the filter that would keep the training rows.
    """
    if splits := split_column.by_split(rows):
        column, [train, *_] = split_column.column(rows) or "", splits[TRAIN]
        others = {split: held for split, held in splits.items() if split != TRAIN}
        remark(
            f"{path}: {column} names rows {split_column.counts(others)}, but all rows are {use}; "
            f"{setting.format(f'{{{column}: {train.fields[column]}}}')} keeps the training rows."
        )


def _is_named(data: Data, split: str, path: str, held: Collection[str]) -> bool:
    """True if `data.test` or `data.validation` names this path, or any path if a split may."""
    value = getattr(data, split)
    return value == path or (bool(held) and isinstance(value, str))
