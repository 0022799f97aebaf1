"""What lies in somebody's data: its format, its labels, how long it is, and whose it is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse.data.formats import row as formats
from hanse.data.formats.row import Reading, Record, Row
from hanse.data.formats.turns import answers
from hanse.data.partitioning import ordered
from hanse.data.sources import corpora, files
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION, is_piece
from hanse.errors import UserError

PLACES = ("folder", "file")  # which a folder's rows have of themselves
# Columns whose values may well be silos; the likeliest first.
OWNERS = (
    *("silo", "client", "client_id", "site", "hospital", "clinic", "bank", "institution"),
    *("organisation", "organization", "company", "branch", "department", "user", "user_id"),
    *("author", "speaker", "source", "domain", "topic", "region", "country", "language"),
    *PLACES,
)
LETTERS = 40  # most of a label that is a word


@dataclass(frozen=True)
class Source:
    """One place that rows come from.

    path: as an experiment names it: in full, so that it can be found from any folder.
    reading: what the columns of the first record were taken for.
    columns: what `data.columns` has to say for the rows to be read so.
    remarks: what is left out, and why it is not read as the data ask for by themselves.
    """

    path: str
    rows: list[Row]
    reading: Reading
    columns: Mapping[str, str]
    remarks: Sequence[str] = ()


def look(path: str, columns: Mapping[str, str], split: str = TRAIN) -> Source:
    """Read what lies at a path, a short name or a hub's name.

    columns: part → the file's column, for what is not found by looking.
    split: which of them, if files are named after splits.
    """
    records = list(corpora.records(path, split=split))
    remarks: list[str] = []
    try:
        rows, reading = _read(records, path, columns, remarks)
        other, why = _otherwise(rows, reading)
        if other:
            columns = {**columns, **other}
            remarks = [f"{why}."]
            rows, reading = _read(records, path, columns, remarks)
    except UserError as error:
        if "data.columns" not in str(error):
            raise
        hint = "; `hanse init` takes that as --columns '{ours: theirs}'."
        raise UserError(f"{str(error).rstrip('.')}{hint}") from None
    named = path in corpora.CORPORA or not Path(path).exists()
    where = path if named else str(Path(path).resolve())
    return Source(where, rows, reading, columns, remarks)


def held_files(path: str) -> dict[str, str]:
    """The file, or else the folder, for test and for validation, of a folder that has splits."""
    found = {} if path in corpora.CORPORA else files.splits(Path(path))
    named = {split: found[split] for split in (TEST, VALIDATION) if split in found}
    return {
        split: str((own[0] if len(own) == 1 else Path(path)).resolve())
        for split, own in named.items()
    }


def _read(
    records: Sequence[Record], path: str, columns: Mapping[str, str], remarks: list[str]
) -> tuple[list[Row], Reading]:
    """The rows of records, and what the columns of the first are taken for.

    remarks: gets what is left out.
    """
    rows = formats.rows(records, path, columns, remarks.append)
    place, first = records[0]
    return rows, formats.reading(first, columns, place)


def _otherwise(rows: Sequence[Row], reading: Reading) -> tuple[dict[str, str], str]:
    """The columns by which rows are better read than by looking, and why; none for most."""
    if rows[0].kind == "preference":
        part = "completion" if rows[0].prompt or rows[0].messages else "text"
        why = "nothing learns from preferences yet, so the better answers alone are learned"
        return {part: reading.columns["chosen"]}, why
    if any(len(row.label or "") > LETTERS for row in rows):
        answer = {"instruction": reading.columns["text"], "completion": reading.columns["label"]}
        return answer, "the labels are too long to choose between, so they are learned as answers"
    return {}, ""


def label_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have each label, in the labels' order."""
    counts = Counter(row.label for row in rows if row.label is not None)
    return {label: counts[label] for label in ordered(counts)}


def tag_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many words have each tag, in the tags' order."""
    counts = Counter(tag for row in rows for tag in row.tags)
    return {tag: counts[tag] for tag in ordered(counts)}


def owner(source: Source, silos: int) -> str | None:
    """The column whose values are the silos: one that may be, with as many values as silos."""
    first, *_ = source.rows
    free = [name for name in first.fields if name not in source.reading.columns.values()]
    for name in sorted((n for n in free if n.casefold() in OWNERS), key=_likeliness):
        if len(silo_names(source, name)) == silos > 1:
            return name
    return None


def silo_names(source: Source, column: str) -> set[str]:
    """The values of a column, if they may be silos: files named after splits are not."""
    values = {row.fields.get(column) for row in source.rows}
    known = {value for value in values if value is not None}
    pieces = column in PLACES and all(map(is_piece, known))
    return set() if len(known) < len(values) or pieces else known


def _likeliness(column: str) -> int:
    return OWNERS.index(column.casefold())


def parts(row: Row) -> tuple[str, str]:
    """What a row asks and what it answers, as text; a mere text is all answer."""
    if row.kind == "messages":
        said = [message["content"] for message in row.messages]
        last = answers(row.messages)[-1]
        return "\n".join(said[:last]), said[last]
    if row.kind == "labelled":
        return row.text, row.label or ""
    return row.prompt, row.completion or row.text


def tokens(text: str) -> float:
    """About how many tokens a text is; made for English, where four letters are one."""
    digits = sum(character.isdigit() for character in text)
    foreign = sum(character > "\x7f" for character in text)
    return (len(text) - digits - foreign) / 4 + digits + 1.3 * foreign
