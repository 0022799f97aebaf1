"""Finds the format of a record by its columns: two tables, and the search in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hanse.data.formats.cells import empty, listed
from hanse.data.formats.contents import literal
from hanse.errors import UserError
from hanse.registry import suggestion


@dataclass(frozen=True)
class Format:
    """A format: the kind of its rows, the parts that it needs, and further parts it may have."""

    name: str
    kind: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The columns that it needs, as a phrase."""
        return " + ".join(("prompt", *self.needs) if "prompt" in self.may else self.needs)


ASKED = ("prompt", "instruction", "system")  # the parts before an answer
VERDICT = "verdict"  # the part that tells if an answer is good
FORMATS = (  # in the order in which they are tried
    Format("messages", "messages", ("messages",), ("system", VERDICT)),
    Format("sharegpt", "messages", ("conversations",), ("system", VERDICT)),
    Format("preference", "preference", ("chosen", "rejected"), ASKED),
    Format("completion", "completion", ("completion",), (*ASKED, VERDICT)),
    Format(
        "alpaca", "messages", ("instruction", "output"), ("input", "system", "history", VERDICT)
    ),
    Format("tagged", "tagged", ("words", "tags")),
    Format("labelled", "labelled", ("text", "label")),
    Format("text", "text", ("text",)),
)
ALIASES = {  # part: its names in other tools, tried if no column has the part's own name
    "messages": ("conversation", "dialogue", "dialog", "chat"),
    "instruction": ("question", "query", "prompt", "input"),
    "input": ("context",),
    "output": ("response", "answer"),
    "words": ("tokens",),
    "tags": ("ner_tags", "pos_tags", "ner", "pos", "upos"),
    "text": (
        *("content", "sentence", "review", "review_text", "review_body", "document", "body"),
        *("comment", "tweet", "post", "article", "abstract", "passage", "utterance"),
    ),
    "label": (
        *("labels", "sentiment", "category", "class", "intent", "target", "stars", "rating"),
        *("emotion", "polarity"),
    ),
}
PARTS = tuple(dict.fromkeys(part for form in FORMATS for part in (*form.needs, *form.may)))


@dataclass(frozen=True)
class Reading:
    """The interpretation of a record's columns.

    kind: of the row that it becomes. columns: part → the file's column. format: as in FORMATS.
    unread: the columns with a value that are no part of the row.
    """

    kind: str
    columns: Mapping[str, str]
    format: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A format that a record may have, and the columns that may be each of its parts.

    exact: every part that it needs has its own name, or the name that `data.columns` gives.
    """

    format: Format
    columns: Mapping[str, tuple[str, ...]]
    exact: bool


def reading(
    record: Mapping[str, Any], columns: Mapping[str, str] | None = None, place: str = "the record"
) -> Reading:
    """The interpretation of a record's columns; `columns` (part → column) takes precedence.

    Raises UserError with the `place` if no format fits, or if several fit equally well.
    """
    named = columns or {}
    fits = _fits(tuple(record), tuple(named.items()))
    if not fits:
        raise UserError(f"{place}: {_misfit(record, named)}")
    _refuse_ambiguous(fits, record, place)
    chosen = {part: names[0] for part, names in fits[0].columns.items()}
    kind = fits[0].format.kind
    if kind == "completion" and not literal({part: record[name] for part, name in chosen.items()}):
        kind = "messages"
    taken = set(chosen.values())
    unread = tuple(name for name in record if name not in taken and not empty(record[name]))
    return _shared(kind, tuple(chosen.items()), fits[0].format.name, unread)


@lru_cache(maxsize=1024)
def _shared(
    kind: str, columns: tuple[tuple[str, str], ...], format: str, unread: tuple[str, ...]
) -> Reading:
    """The same Reading for all rows with the same columns, so that each row can hold it."""
    return Reading(kind, dict(columns), format, unread)


def with_verdict(reading: Reading, column: str) -> Reading:
    """The same reading with the column that judges the answer; "" for none, whatever its name."""
    unread = tuple(name for name in reading.unread if name != column)
    ignored = reading.columns.get(VERDICT, column)
    if ignored != column:
        unread = (*unread, ignored)
    if unread == reading.unread:
        return reading
    return _shared(reading.kind, tuple(reading.columns.items()), reading.format, unread)


def _refuse_ambiguous(fits: Sequence[Fit], record: Mapping[str, Any], place: str) -> None:
    """Raise UserError if the first format is not the only one, or its columns are not certain."""
    if len(fits) > 1 and not fits[0].exact:
        ways = " or ".join(_shown(fit) for fit in fits)
        part = fits[-1].format.needs[0]
        raise UserError(
            f"{place}: the columns {listed(record)} can be read as {ways}; say which, such as "
            f"data.columns: {{{part}: {fits[-1].columns[part][0]}}}."
        )
    for part, names in fits[0].columns.items():
        if len(names) > 1:
            raise UserError(
                f"{place}: the part {part!r} may be the column {' or '.join(map(repr, names))}; "
                f"say which, such as data.columns: {{{part}: {names[0]}}}."
            )


def check(columns: Mapping[str, str]) -> None:
    """Raise UserError if the keys of `data.columns` are not parts of a format."""
    for part in columns:
        if part not in PARTS:
            raise UserError(
                f"data.columns has {part!r}{suggestion(part, PARTS)} to the left of a column; "
                f"write {{part: column}} with one of the parts {', '.join(PARTS)}."
            )


def parts_of(kind: str) -> str:
    """The parts of a kind of rows, as a phrase for an error message."""
    return next(str(form) for form in FORMATS if form.kind == kind)


@lru_cache(maxsize=1024)
def _fits(names: tuple[str, ...], named: tuple[tuple[str, str], ...]) -> tuple[Fit, ...]:
    """The formats that a record with these columns may have, the likeliest first.

    named: the (part, column) pairs of `data.columns`.
    """
    present = {part for part, column in named if column in names}
    # If the user names columns, others are guessed only if nothing fits without a guess: then
    # {text: body} means a text, though a column "category" could have been its label.
    for guess in (False, True) if named else (True,):
        candidates = [_fit(form, names, dict(named), guess) for form in FORMATS]
        fits = [fit for fit in candidates if fit and present <= set(fit.columns)]
        if fits:
            break
    needs = [set(fit.format.needs) for fit in fits]
    # A text with a label is not read as a text alone.
    return tuple(f for f in fits if not any(set(f.format.needs) < other for other in needs))


def _fit(form: Format, names: tuple[str, ...], named: dict[str, str], guess: bool) -> Fit | None:
    """The columns of each part of one format; None if one that it needs is missing."""
    parts = (*form.needs, *form.may)
    taken = {column for part, column in named.items() if part in parts}
    columns: dict[str, tuple[str, ...]] = {}
    exact = True
    for part in parts:
        free = {_folded(name): name for name in reversed(names) if name not in taken}
        free |= {name: name for name in free.values()}  # the exact spelling takes precedence
        if part in named:
            matches = tuple(name for name in names if name == named[part])
        elif part in free:
            matches = (free[part],)
        elif guess or part in form.may:
            matches = _aliased(part, parts, free)
            exact = exact and (not matches or part in form.may)
        else:
            matches = ()
        if matches:
            columns[part] = matches
            taken.update(matches)
        elif part in form.needs:
            return None
    return Fit(form, columns, exact)


def _aliased(part: str, parts: tuple[str, ...], free: Mapping[str, str]) -> tuple[str, ...]:
    """The free columns that have a name of `part` in other tools.

    Columns that have the name of another part come last: "input" is an instruction only if no
    other column is.
    """
    matches = tuple(free[alias] for alias in ALIASES.get(part, ()) if alias in free)
    return tuple(name for name in matches if _folded(name) not in parts) or matches


def _folded(name: str) -> str:
    """A column's name in the spelling of the tables: "Review Text" becomes review_text."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _shown(fit: Fit) -> str:
    """A format and its columns, as a phrase."""
    columns = ", ".join(repr(fit.columns[part][0]) for part in fit.format.needs)
    return f"{fit.format} (in {columns})"


def _misfit(record: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """The error message for a record that fits no format."""
    for part, column in named.items():
        if column not in record:
            return (
                f"data.columns takes {part} from {column!r}, which is not there"
                f"{suggestion(column, record)}; there are {listed(record)}."
            )
    known = ", ".join(map(str, FORMATS))
    # The example names the longest text, among names that YAML takes without quotes.
    plain = [name for name in record if re.fullmatch(r"[^\W\d][\w .-]*", name)]
    texts = [name for name in plain if isinstance(record[name], str)]
    longest = max(texts, key=lambda name: len(record[name]), default="…")
    first = "" if len(plain) == len(record) else " (the first line of a table names its columns)"
    return (
        f"the columns {listed(record)} fit no known format{first}; known are {known}; say which "
        f"column is which, such as data.columns: {{text: {longest:.40}}}."
    )
