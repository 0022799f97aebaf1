"""One record of a data file as a row, in whichever of the known formats it was written.

The format is found by looking at the columns (columns.py has the table); `data.columns` names them
where that is not enough. Every other plain column is kept beside the row, to partition or to filter
by.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hanse.data.formats import cells
from hanse.data.formats.columns import Reading as Reading
from hanse.data.formats.columns import check, parts_of
from hanse.data.formats.columns import reading as reading
from hanse.data.formats.contents import CONTENTS
from hanse.data.formats.turns import answers
from hanse.errors import UserError
from hanse.registry import suggestion

log = logging.getLogger(__name__)

ANSWERED = ("messages", "completion")  # the kinds of rows that ask and answer, and need no label
VERDICTS = ("label", "kto_tag")  # columns that mark an answer as good or bad: TRL, LLaMA-Factory
TRUTH = ("true", "false")
Record = tuple[str, Mapping[str, Any]]  # where it stands ("file:line"), and its columns


@dataclass(frozen=True)
class Row:
    """One example as text; the parts that its format does not have are empty.

    messages: a conversation; of a preference, what comes before the two answers.
    words, tags: those of a text that is the words with a space between them, and a tag for each.
    chosen, rejected: the two answers of a preference, to the messages or to the prompt.
    fields: every other plain column as text, and the label if there is one.
    place: where it stands, "file:line", for error messages.
    vector: what a sentence encoder makes of it, for a partitioner that asks for one.
    left_out: why nobody learns from it; empty for most.
    """

    messages: tuple[Mapping[str, str], ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    label: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    vector: Sequence[float] = ()
    chosen: str = ""
    rejected: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    left_out: str = ""

    @property
    def kind(self) -> str:
        """Which kind it is: preference, messages, completion, tagged, labelled or text."""
        if self.chosen:
            return "preference"
        if self.messages:
            return "messages"
        if self.completion:
            return "completion"
        if self.tags:
            return "tagged"
        return "text" if self.label is None else "labelled"


def rows(
    records: Iterable[Record],
    name: str,
    columns: Mapping[str, str],
    remark: Callable[[str], None] = log.warning,
) -> list[Row]:
    """The rows of one source of data, which must be of one kind, without those marked as bad.

    name: how to call the source in messages.
    columns: part → the file's column, for what is not found by looking.
    remark: is told which rows are left out, and why.
    Raises UserError with file and line for what does not fit.
    """
    check(columns)
    result: list[Row] = []
    there: dict[str, None] = {}
    for place, record in records:
        there.update(dict.fromkeys(record))
        found = row(record, place, columns)
        if result and found.kind != result[0].kind:
            raise UserError(
                f"{place} has {parts_of(found.kind)}, but {result[0].place} has "
                f"{parts_of(result[0].kind)}; one file or folder holds one kind of rows, so split "
                "it in two."
            )
        result.append(found)
    if not result:
        raise UserError(f"{name} holds no rows; give a file with at least one example.")
    for theirs in columns.values():
        if theirs not in there:
            raise UserError(
                f"data.columns: {name} has no column {theirs!r}{suggestion(theirs, there)}; it has "
                f"{cells.listed(there)}."
            )
    return _learned(result, name, remark)


def _learned(found: list[Row], name: str, remark: Callable[[str], None]) -> list[Row]:
    """The rows that somebody may learn from; raises UserError if there are none."""
    left = Counter(row.left_out for row in found if row.left_out)
    for why, count in left.items():
        rows = "row" if len(found) == 1 else "rows"
        remark(f"{count:,} of {len(found):,} {rows} of {name} are left out: {why}.")
    if left.total() == len(found):
        raise UserError(
            f"{name} has nothing to learn: {'; '.join(left)}; mend the marks, or give other data."
        )
    return [row for row in found if not row.left_out] if left else found


def row(record: Mapping[str, Any], place: str, columns: Mapping[str, str] | None = None) -> Row:
    """The row that a record stands for; raises UserError with the `place` of what is wrong."""
    found = reading(record, columns, place)
    parts = {part: record[theirs] for part, theirs in found.columns.items()}
    content = CONTENTS[found.format](parts, place)
    label = found.columns.get("label", "label")
    taken = set(found.columns.values()) - {label}
    fields = {}
    for name in record:
        value = None if name in taken else cells.plain(record[name])
        if value is not None:
            fields[name] = cells.whole(value, name, place)
    if "label" in content:  # under its own name, too, by which a file's owner knows it
        fields |= {label: content["label"], "label": content["label"]}
    verdict = _verdict(fields) if found.kind in ANSWERED else ""
    own = {"label": None if verdict else fields.get("label"), **content}
    return Row(**own, fields=fields, place=place, left_out=_why(own, fields, verdict))


def _verdict(fields: Mapping[str, str]) -> str:
    """The column that says whether an answer is good, as KTO has it; "" if there is none."""
    named = (name for name in fields if name.strip().casefold() in VERDICTS)
    return next((name for name in named if fields[name].strip().lower() in TRUTH), "")


def _why(content: Mapping[str, Any], fields: Mapping[str, str], verdict: str) -> str:
    """Why nobody learns from a row; "" if there is no reason."""
    if verdict and fields[verdict].strip().lower() == "false":
        return f"{verdict} false marks a bad answer, and nothing here learns from these"
    messages = content.get("messages", ())
    if messages and "chosen" not in content and not answers(messages):
        return "every answer in them is marked as not to be learned"
    return ""
