"""A column that tells the split of each row, in tables that hold all splits in one file."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from hanse.data.formats.row import Row
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION, split_of

NAMES = ("split", "subset", "set", "data_split", "dataset_split", "partition")


def column(rows: Sequence[Row], split: str = TRAIN) -> str | None:
    """The column whose values name a split in every row: training or `split`, and another one."""
    for name in rows[0].fields:
        if name.strip().casefold() in NAMES and name not in _parts(rows[0]):
            values = {row.fields.get(name, "") for row in rows}
            splits = {split_of(PurePath(value)) for value in values}
            if None not in splits and {TRAIN, split} & splits and len(splits) > 1:
                return name
    return None


def by_split(rows: Sequence[Row], split: str = TRAIN) -> Mapping[str, list[Row]]:
    """The rows of each split; empty without such a column."""
    if (name := column(rows, split)) is None:
        return {}
    result: dict[str, list[Row]] = {TRAIN: [], TEST: [], VALIDATION: []}
    for row in rows:
        result[split_of(PurePath(row.fields[name])) or TRAIN].append(row)
    return {name: held for name, held in result.items() if held}


def counts(splits: Mapping[str, Sequence[Row]]) -> str:
    """The number of rows of each split, as a phrase."""
    return " and ".join(f"{len(rows):,} for {split}" for split, rows in splits.items())


def _parts(row: Row) -> Sequence[str]:
    """The columns that are parts of a row, and therefore tell no split."""
    return list(row.reading.columns.values()) if row.reading else []
