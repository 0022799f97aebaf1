"""Turns a record of a data file into a row, whichever of the known formats it has.

The format is found by the names of the columns (the tables are in columns.py and column_names.py)
or named in `data.columns`. All other plain columns are kept in the row's fields, to partition or to
filter by.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from hanse.data.formats import cells, column_names
from hanse.data.formats.columns import VERDICT, check, parts_of, with_unread
from hanse.data.formats.columns import Reading as Reading
from hanse.data.formats.columns import reading as reading
from hanse.data.formats.contents import CONTENTS, Parts, unread_keys
from hanse.data.formats.invalid_rows import ENOUGH, InvalidRows
from hanse.data.formats.tool_calls import Calls
from hanse.data.formats.turns import Turn, answers
from hanse.errors import UserError
from hanse.registry import suggestion

log = logging.getLogger(__name__)

ANSWERED = ("messages", "completion")  # the kinds of rows that ask and answer, and need no label
MARKS = ("label", "kto_tag")  # columns that mark an answer as good or bad: TRL, LLaMA-Factory
BOOLEANS = ("true", "false")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
SAMPLE = 100  # records whose cells tell if a column holds dialogues or programs
MOST_NUMBERS = 20  # numbers with fractions that may be labels
Record = tuple[str, Mapping[str, Any]]  # its place ("file:line"), and its columns


@dataclass(frozen=True)
class Row:
    """One example as text; the parts that its format does not have are empty.

    messages: a conversation; of a preference, the messages before the two answers.
    tools: the tools that its assistant may call.
    words, tags: words and a tag for each; the text is the words with a space between them.
    chosen, rejected: the two answers of a preference, to the messages or to the prompt.
    chosen_calls, rejected_calls: the tools that these answers call.
    verdict: the text of the column that judges the answer; empty without one.
    fields: all other plain columns as text, and the label if there is one.
    text_pair: the second text of a pair, such as a hypothesis about the first; empty without one.
    place: "file:line", for error messages.
    vector: its sentence embedding, if the partitioner needs one.
    left_out: the reason for which it is not learned; empty for most rows.
    reading: the interpretation of the record's columns; None for a row that comes from no record.
    """

    messages: tuple[Turn, ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    label: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    vector: Sequence[float] = ()
    chosen: str = ""
    rejected: str = ""
    chosen_calls: Calls = ()
    rejected_calls: Calls = ()
    verdict: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    left_out: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    text_pair: str = ""
    reading: Reading | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """Its kind: preference, messages, completion, tagged, labelled or text."""
        if self.chosen or self.chosen_calls:
            return "preference"
        if self.messages:
            return "messages"
        if self.completion:
            return "completion"
        if self.tags:
            return "tagged"
        return "text" if self.label is None else "labelled"

    @property
    def parts(self) -> str:
        """The parts of its format as a phrase, such as "text + text_pair + label"."""
        return parts_of(self.reading.format if self.reading else self.kind)


def rows(
    records: Iterable[Record],
    name: str,
    columns: Mapping[str, str],
    remark: Callable[[str], None] = log.warning,
    judged: bool = False,
    invalid: InvalidRows | None = None,
) -> list[Row]:
    """The rows of one source of data, all of one kind, without those marked as bad.

    name: of the source, for messages.
    columns: part → the file's column, for parts that are not found by their names.
    remark: gets a message about rows that are left out, with the reason.
    judged: bad answers are rows, too, since something learns from verdicts.
    invalid: gets the records that are no such rows, beside those that the reader found.
    Raises UserError with file and line for invalid records, unless they are skipped.
    """
    check(columns)
    invalid = invalid or InvalidRows()
    by_kind: dict[str, list[Row]] = {}
    present: dict[str, None] = {}
    names, records = with_names(records)
    for place, record in records:
        present.update(dict.fromkeys(record))
        try:
            new = row(record, place, columns, judged, names)
            by_kind.setdefault(new.kind, []).append(new)
        except UserError as fault:
            invalid.add(place, fault)
            if invalid.count >= ENOUGH and not by_kind:
                invalid.stopped = True
                break
    result = _of_one_kind(by_kind, invalid)
    invalid.conclude(name, len(result), remark)
    if not result:
        raise UserError(f"{name} holds no rows; give a file with at least one example.")
    _refuse_missing(columns, present, name)
    _refuse_regression(result, name)
    return _learnable(result, name, remark)


def with_names(records: Iterable[Record]) -> tuple[Mapping[str, str], Iterator[Record]]:
    """The names of columns whose cells decide it, and all the records.

    The first records are read in advance, if there is such a column in the first of them.
    """
    remaining = iter(records)
    first = list(islice(remaining, 1))
    if first and any(column_names.folded(name) in column_names.DECIDED for name in first[0][1]):
        first += islice(remaining, SAMPLE - 1)
    return column_names.decided(record for _, record in first), chain(first, remaining)


def _of_one_kind(by_kind: Mapping[str, list[Row]], invalid: InvalidRows) -> list[Row]:
    """The rows of the most frequent kind; the others are invalid."""
    result = max(by_kind.values(), key=len, default=[])
    for others in by_kind.values():
        for other in others if others is not result else ():
            fault = UserError(
                f"{other.place} has {other.parts}, but {result[0].place} has "
                f"{result[0].parts}; a file or folder holds one kind of rows: split it in "
                "two."
            )
            invalid.add(other.place, fault)
    return result


def _refuse_missing(columns: Mapping[str, str], present: Iterable[str], name: str) -> None:
    """Raise UserError if `data.columns` names a column that no record has."""
    for column in columns.values():
        if column not in present:
            raise UserError(
                f"data.columns: {name} has no column {column!r}{suggestion(column, present)}; it "
                f"has {cells.listed(present)}."
            )


def _refuse_regression(rows: Sequence[Row], name: str) -> None:
    """Raise UserError if the labels are measurements: many different numbers, with fractions."""
    reading = rows[0].reading
    values = {row.label or "" for row in rows} if rows[0].kind == "labelled" else set()
    if reading is None or len(values) <= MOST_NUMBERS or not all(map(NUMBER.fullmatch, values)):
        return
    if any(not float(value).is_integer() for value in values):
        text, label = (reading.columns[part] for part in ("text", "label"))
        raise UserError(
            f"{name}: {label} holds {len(values):,} different numbers with fractions, and numbers "
            "are not predicted (no regression); round them to a few labels, or let the model write "
            f"them with data.columns: {{instruction: {text}, output: {label}}}."
        )


def _learnable(rows: list[Row], name: str, remark: Callable[[str], None]) -> list[Row]:
    """The rows without those that are left out; raises UserError if none remain."""
    reasons = Counter(row.left_out for row in rows if row.left_out)
    for reason, count in reasons.items():
        noun = "row" if len(rows) == 1 else "rows"
        remark(f"{count:,} of {len(rows):,} {noun} of {name} are left out: {reason}.")
    if reasons.total() == len(rows):
        raise UserError(
            f"{name} has nothing to learn: {'; '.join(reasons)}; correct the marks, or give other "
            "data."
        )
    return [row for row in rows if not row.left_out] if reasons else rows


def row(
    record: Mapping[str, Any],
    place: str,
    columns: Mapping[str, str] | None = None,
    judged: bool = False,
    names: Mapping[str, str] | None = None,
) -> Row:
    """The row of a record; raises UserError with the `place` if it cannot be read.

    names: the names in the tables of columns whose cells decide it, as the source has them.
    """
    interpretation = reading(record, columns, place, names)
    parts = Parts(record, interpretation.columns)
    content = CONTENTS[interpretation.format](parts, place)
    label = interpretation.columns.get("label", "label")
    taken = set(interpretation.columns.values()) - {label, interpretation.columns.get(VERDICT)}
    fields = {}
    for name in record:
        value = None if name in taken else cells.plain(record[name])
        if value is not None:
            fields[name] = cells.encodable(value, name, place)
    if "label" in content:  # under the file's name for it, too, which its owner knows
        fields |= {label: content["label"], "label": content["label"]}
    column = ""
    if interpretation.kind in ANSWERED:
        named = VERDICT in (columns or {}) or judged
        named_column = interpretation.columns.get(VERDICT, "") if named else ""
        column = named_column or _judging(fields, judged)
    verdict = fields.get(column, "").strip()
    content = {"label": None if column else fields.get("label"), **content}
    reason = _reason_left_out(content, column, "" if judged else verdict)
    return Row(
        **content,
        fields=fields,
        place=place,
        left_out=reason,
        verdict=verdict,
        reading=with_unread(interpretation, column, unread_keys(parts)),
    )


def _judging(fields: Mapping[str, str], judged: bool) -> str:
    """The column that marks answers as good or bad (KTO's form); "" without one.

    judged: a column with other values than true and false counts, too, if there is no better one.
    """
    columns = [name for name in fields if name.strip().casefold() in MARKS]
    booleans = (name for name in columns if fields[name].strip().lower() in BOOLEANS)
    return next(booleans, columns[0] if columns and judged else "")


def _reason_left_out(content: Mapping[str, Any], column: str, verdict: str) -> str:
    """The reason for which a row is not learned; "" without one.

    column: the one that judges the answer. verdict: its text, empty if bad answers are learned.
    """
    if verdict.lower() == "false":
        return (
            f"{column} false marks a bad answer, and only an objective for verdicts learns from it"
        )
    messages = content.get("messages", ())
    if messages and "chosen" not in content and not answers(messages):
        return "every answer in them is marked as not to be learned"
    return ""
