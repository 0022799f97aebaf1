"""A summary of the user's data: format, labels, lengths and owners."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse.data.formats import row as formats
from hanse.data.formats.column_remarks import document_guess, several_labels
from hanse.data.formats.invalid_rows import InvalidRows
from hanse.data.formats.row import Reading, Record, Row
from hanse.data.formats.turns import answers
from hanse.data.partitioning import ordered
from hanse.data.sources import corpora, files
from hanse.data.sources.split_files import TEST, TRAIN, VALIDATION
from hanse.errors import UserError

LETTERS = 40  # most characters of a label


@dataclass(frozen=True)
class Source:
    """One source of rows.

    path: the full path, which an experiment can name from any folder.
    reading: how the columns of the first record are read.
    columns: the setting `data.columns` with which the rows are read like this.
    remarks: rows that are left out, and reasons for another reading than the usual one.
    skip_invalid, encoding: the settings of these names, with which the files are read.
    """

    path: str
    rows: list[Row]
    reading: Reading
    columns: Mapping[str, str]
    remarks: Sequence[str] = ()
    skip_invalid: bool = False
    encoding: str = ""


def look(
    path: str,
    columns: Mapping[str, str],
    split: str = TRAIN,
    skip_invalid: bool = False,
    encoding: str = "",
) -> Source:
    """Read the data at a path, of a short name or of a hub's name.

    columns: part → the file's column, for parts that are not found by their names.
    split: the split to read, if files are named after splits.
    skip_invalid: leave rows out that cannot be read.
    encoding: of the files, if it is not UTF-8.
    """
    try:
        file = _file(path, split, skip_invalid, encoding)
        remarks = list(file.remarks)
        rows, reading = _read(file, columns, remarks)
        if not columns and (reason := several_labels(rows)):
            raise UserError(f"{path}: {reason}, and {{text: …}} learns the texts alone.")
        other, why = _otherwise(rows, reading)
        if other:
            columns = {**columns, **other}
            remarks = [*file.remarks, f"{why}."]
            rows, reading = _read(file, columns, remarks)
    except UserError as error:
        raise _with_options(error) from None
    is_name = path in corpora.CORPORA or not Path(path).exists()
    full_path = path if is_name else str(Path(path).resolve())
    return Source(full_path, rows, reading, columns, remarks, skip_invalid, encoding)


def _with_options(error: UserError) -> UserError:
    """An error about a file with the options of `hanse init` beside the settings that it names."""
    sentence = str(error).rstrip(".")
    if "data.columns" in sentence:
        sentence += "; `hanse init` takes that as --columns '{ours: theirs}'"
    if "data.skip_invalid" in sentence:
        sentence += "; `hanse init` takes that as --skip-invalid"
    if "data.encoding" in sentence:
        sentence += "; `hanse init` takes that as --encoding"
    return UserError(f"{sentence}.")


def held_files(path: str) -> dict[str, str]:
    """The file, or the folder if there are several, of each split for test and validation.

    They lie in the folder at `path`, or beside the file there if it is named for training.
    """
    splits = {} if path in corpora.CORPORA else files.splits(Path(path))
    if not splits:
        return {split: str(file.resolve()) for split, file in files.beside(Path(path)).items()}
    held = {split: splits[split] for split in (TEST, VALIDATION) if split in splits}
    return {
        split: str((paths[0] if len(paths) == 1 else Path(path)).resolve())
        for split, paths in held.items()
    }


@dataclass(frozen=True)
class _File:
    """The content of a source before its columns are read.

    invalid: the places of rows that are not records, each with its error.
    """

    path: str
    records: list[Record]
    invalid: list[tuple[str, UserError]]
    remarks: list[str]
    skip_invalid: bool


def _file(path: str, split: str, skip_invalid: bool, encoding: str) -> _File:
    """Read a source."""
    invalid: list[tuple[str, UserError]] = []
    remarks: list[str] = []
    options = files.Options(lambda *fault: invalid.append(fault), remarks.append, encoding)
    return _File(path, [*corpora.records(path, split, options)], invalid, remarks, skip_invalid)


def _read(file: _File, columns: Mapping[str, str], remarks: list[str]) -> tuple[list[Row], Reading]:
    """The rows of a source, and the reading of the first one's columns.

    remarks: gets a message about rows that are left out.
    """
    invalid = InvalidRows(file.skip_invalid)
    for fault in file.invalid:
        invalid.add(*fault)
    rows = formats.rows(file.records, file.path, columns, remarks.append, invalid=invalid)
    reading = rows[0].reading
    assert reading is not None  # they come from records
    return rows, reading


def _otherwise(rows: Sequence[Row], reading: Reading) -> tuple[dict[str, str], str]:
    """Better columns than the usual ones, and the reason; empty for most data."""
    if rows[0].kind == "preference":
        part = "completion" if rows[0].prompt or rows[0].messages else "text"
        why = "no objective here learns from preferences, so the better answers alone are learned"
        return {part: reading.columns["chosen"]}, why
    if reading.format == "document":
        parts = ("instruction", "output")
        return {part: reading.columns[part] for part in parts}, document_guess(rows)
    if any(len(row.label or "") > LETTERS for row in rows):
        answer = {"instruction": reading.columns["text"], "completion": reading.columns["label"]}
        return answer, "the labels are too long to choose between, so they are learned as answers"
    return {}, ""


def label_counts(rows: Sequence[Row]) -> dict[str, int]:
    """The number of rows with each label, in the labels' order."""
    counts = Counter(row.label for row in rows if row.label is not None)
    return {label: counts[label] for label in ordered(counts)}


def tag_counts(rows: Sequence[Row]) -> dict[str, int]:
    """The number of words with each tag, in the tags' order."""
    counts = Counter(tag for row in rows for tag in row.tags)
    return {tag: counts[tag] for tag in ordered(counts)}


def parts(row: Row) -> tuple[str, str]:
    """The prompt and the answer of a row as text; a row that is only a text is all answer."""
    if row.kind == "messages":
        texts = [message["content"] for message in row.messages]
        last = answers(row.messages)[-1]
        return "\n".join(texts[:last]), texts[last]
    if row.kind == "labelled":
        return row.text, row.label or ""
    return row.prompt, row.completion or row.text
