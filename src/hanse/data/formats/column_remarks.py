"""Sentences on the columns of a source: a reading that is a guess, and what nothing uses."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hanse.data.formats.row import ANSWERED, MARKS, Row

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

    @property
    def is_binary(self) -> bool:
        """True if the values are 0 and 1, or false and true."""
        return {value.lower() for value in self.values} <= BINARY


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
    columns = [name for name in _unread(rows) if name not in used and name not in ADDED]
    if not columns:
        return []
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    return [f"not used: {_named(columns)}{more} ({_hint(rows, columns) or HINT})."]


def _unread(rows: Sequence[Row]) -> list[str]:
    """The columns that are no part of some row."""
    unread: dict[str, None] = {}
    for row in rows:
        if row.reading:
            unread.update(dict.fromkeys(row.reading.unread))
    return list(unread)


def _hint(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The setting that uses a column as the label of a text or the mark of an answer; or ""."""
    labels = _candidates(rows, columns)
    if rows[0].kind in ANSWERED:
        return _filter_hint(labels)
    if rows[0].kind != "text" or rows[0].reading is None or not labels:
        return ""
    if several := several_labels(rows, labels):
        return several
    first, *others = labels
    setting = "data.columns: " + _classifies(rows[0].reading.columns["text"], first)
    more = [f"{label.column} {len(label.values)}" for label in others[: NAMED - 1]]
    counts = ", ".join((f"{first.column} has {len(first.values)} values", *more))
    return f"{counts}; {setting} {'the first' if others else 'it'}"


def several_labels(rows: Sequence[Row], labels: Sequence[Candidate] = ()) -> str:
    """The setting that classifies texts by one of several columns of 0 and 1; "" without these.

    labels: the columns that may be labels; empty: they are looked for.
    """
    reading = rows[0].reading
    if rows[0].kind != "text" or reading is None:
        return ""
    labels = [label for label in labels or _candidates(rows, _unread(rows)) if label.is_binary]
    if len(labels) < 2:
        return ""
    setting = _classifies(reading.columns["text"], labels[0])
    return (
        f"{_named([label.column for label in labels])} hold 0 or 1, but several labels of one text "
        f"cannot be learned (no multi-label classification); data.columns: {setting} one of them"
    )


def _filter_hint(labels: Sequence[Candidate]) -> str:
    """The setting that keeps answers with a mark, such as label: 1; "" without such a column."""
    for label in labels:
        named = label.column.strip().casefold() in MARKS
        if len(label.values) == 2 and (named or label.is_binary):
            return (
                f"{label.column} has 2 values; data.filter: {{{label.column}: "
                f"{max(label.values)!r}}} keeps the rows with one of them"
            )
    return ""


def _classifies(text: str, label: Candidate) -> str:
    """The value of data.columns that takes a column as the label of a text."""
    return f"{{text: {text}, label: {label.column}}} classifies by"


def _named(columns: Sequence[str]) -> str:
    """The names of columns as a phrase of limited length."""
    return ", ".join(f"{name:.40}" for name in columns[:NAMED])


def _candidates(rows: Sequence[Row], columns: Iterable[str]) -> list[Candidate]:
    """The columns that may be labels."""
    cells = ((name, [row.fields.get(name, "") for row in rows]) for name in columns)
    return [label for name, values in cells if (label := _candidate(name, values))]


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
