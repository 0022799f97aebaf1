"""A sentence on the columns of a source that nothing uses, with the setting that would use them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row

ADDED = ("file", "folder")  # columns that reading a folder adds
NAMED = 10  # most columns that a sentence names
VALUES, LETTERS = 20, 40  # most values of a label, and most characters of one
HINT = (
    "data.columns takes a column as a part of the rows, data.filter keeps rows by its values, and "
    "data.partition divides rows by them"
)
BINARY = frozenset({"0", "1", "true", "false"})


@dataclass(frozen=True)
class Candidate:
    """A column that may be the label of a text. values: its distinct values."""

    column: str
    values: frozenset[str]


def unused(rows: Sequence[Row], used: Collection[str] = ()) -> list[str]:
    """One sentence on the columns of a source that nothing uses, without its name; or none.

    used: columns that settings use: to filter by, to deal rows by, in a template.
    """
    unread: dict[str, None] = {}
    for row in rows:
        if row.reading:
            unread.update(dict.fromkeys(row.reading.unread))
    columns = [name for name in unread if name not in used and name not in ADDED]
    if not columns:
        return []
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    return [f"not used: {_named(columns)}{more} ({_label_hint(rows, columns) or HINT})."]


def _label_hint(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The setting that classifies texts by one of the columns; "" if none is likely to be a label.

    rows: texts without labels, or others, which need none.
    """
    if rows[0].kind != "text" or rows[0].reading is None:
        return ""
    labels = [label for name in columns if (label := _candidate(rows, name))]
    if not labels:
        return ""
    first, *others = labels
    text = rows[0].reading.columns["text"]
    setting = f"data.columns: {{text: {text}, label: {first.column}}} classifies by"
    binary = [label.column for label in labels if label.values <= BINARY]
    if len(binary) > 1:
        return (
            f"{_named(binary)} hold 0 or 1, but several labels of one text cannot be learned; "
            f"{setting} one of them"
        )
    counts = [f"{first.column} has {len(first.values)} values"]
    counts += [f"{label.column} {len(label.values)}" for label in others[: NAMED - 1]]
    return f"{', '.join(counts)}; {setting} {'the first' if others else 'it'}"


def _named(columns: Sequence[str]) -> str:
    """The names of columns as a phrase of limited length."""
    return ", ".join(f"{name:.40}" for name in columns[:NAMED])


def _candidate(rows: Sequence[Row], column: str) -> Candidate | None:
    """The column with its values if every row has one, and they are few, short and repeated."""
    values: set[str] = set()
    for row in rows:
        value = row.fields.get(column)
        if value is None or not 0 < len(value.strip()) <= LETTERS:
            return None
        values.add(value.strip())
        if len(values) > VALUES:
            return None
    repeated = 2 <= len(values) <= len(rows) / 2
    return Candidate(column, frozenset(values)) if repeated else None
