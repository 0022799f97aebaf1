"""Sentences on the columns of a source: a reading that is a guess, and what nothing uses."""

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


def remarks(rows: Sequence[Row], used: Collection[str] = ()) -> list[str]:
    """The sentences on the columns of a source, without its name.

    used: columns that settings use: to filter by, to deal rows by, in a template.
    """
    guess = document_guess(rows)
    return [*([f"{guess}."] if guess else []), *_unused(rows, used)]


def document_guess(rows: Sequence[Row]) -> str:
    """The interpretation of documents as questions, and settings for others; "" for other rows."""
    reading = rows[0].reading
    if reading is None or reading.format != "document":
        return ""
    document, answer = reading.columns["instruction"], reading.columns["output"]
    label = _candidate(answer, [row.messages[-1]["content"] for row in rows])
    labelled = f" {_classifies(document, label)} it," if label else ""
    return (
        f"{document} is read as the question and {answer} as the answer to learn; data.columns: "
        f"{{text: {document}}} learns {document} alone,{labelled} and {{instruction: …, output: …}}"
        " takes other columns"
    )


def _unused(rows: Sequence[Row], used: Collection[str]) -> list[str]:
    """A sentence on the columns that nothing uses; empty if all are in use."""
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
    values = {name: [row.fields.get(name, "") for row in rows] for name in columns}
    labels = [label for name in columns if (label := _candidate(name, values[name]))]
    if not labels:
        return ""
    first, *others = labels
    setting = "data.columns: " + _classifies(rows[0].reading.columns["text"], first)
    binary = [label.column for label in labels if label.values <= BINARY]
    if len(binary) > 1:
        return (
            f"{_named(binary)} hold 0 or 1, but several labels of one text cannot be learned; "
            f"{setting} one of them"
        )
    more = [f"{label.column} {len(label.values)}" for label in others[: NAMED - 1]]
    counts = ", ".join((f"{first.column} has {len(first.values)} values", *more))
    return f"{counts}; {setting} {'the first' if others else 'it'}"


def _classifies(text: str, label: Candidate) -> str:
    """The value of data.columns that takes a column as the label of a text."""
    return f"{{text: {text}, label: {label.column}}} classifies by"


def _named(columns: Sequence[str]) -> str:
    """The names of columns as a phrase of limited length."""
    return ", ".join(f"{name:.40}" for name in columns[:NAMED])


def _candidate(column: str, cells: Sequence[str]) -> Candidate | None:
    """The column with its values if every row has one, and they are few, short and repeated."""
    values: set[str] = set()
    for cell in cells:
        if not 0 < len(cell.strip()) <= LETTERS:
            return None
        values.add(cell.strip())
        if len(values) > VALUES:
            return None
    repeated = 2 <= len(values) <= len(cells) / 2
    return Candidate(column, frozenset(values)) if repeated else None
