"""Finds the format of a record by its columns: the table of formats, and the search in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from hanse.data.formats import pairs, written_lists
from hanse.data.formats.cells import empty, listed
from hanse.data.formats.column_names import (
    DOCUMENT_ALIASES,
    TOOLS,
    aliased,
    folded,
    is_late,
    name_of,
    of_document,
)
from hanse.data.formats.contents import Parts, literal
from hanse.data.formats.misfit import misfit
from hanse.data.formats.turns import ends_in_question
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
TALK = ("system", TOOLS, VERDICT)  # the parts beside a conversation
FORMATS = (  # in the order in which they are tried
    Format("messages", "messages", ("messages",), ("loss_mask", *TALK)),
    Format("sharegpt", "messages", ("conversations",), ("loss_mask", *TALK)),
    Format("preference", "preference", ("chosen", "rejected"), (*ASKED, TOOLS)),
    Format("completion", "completion", ("completion",), (*ASKED, TOOLS, VERDICT)),
    Format("alpaca", "messages", ("instruction", "output"), ("input", "history", *TALK)),
    Format("tagged", "tagged", ("words", "tags")),
    Format("labelled", "labelled", ("text", "label")),
    Format("pair", "labelled", ("text", "text_pair", "label")),
    Format("document", "messages", ("instruction", "output"), ("system", VERDICT)),
    Format("text", "text", ("text",)),
)
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
    late: a part that it needs has a late name only (see column_names.LATE).
    """

    format: Format
    columns: Mapping[str, tuple[str, ...]]
    exact: bool
    late: bool


def reading(
    record: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    place: str = "the record",
    names: Mapping[str, str] | None = None,
) -> Reading:
    """The interpretation of a record's columns; `columns` (part → column) takes precedence.

    names: the names in the tables of columns whose cells decide it, as the source has them.
    Raises UserError with the `place` if no format fits, or if several fit equally well.
    """
    named = columns or {}
    decided = names or {}
    keys = tuple(
        (name, decided[name] if name in decided else name_of(name, value))
        for name, value in record.items()
    )
    pair = {} if "text" in named else pairs.pair({folded(name): name for name in record})
    fits = _fits(keys, tuple(named.items()))
    if pair and not any(map(_comes_before_pair, fits)):
        fits = _fits(keys, tuple({**pair, **named}.items())) or fits
    if not fits:
        known = ", ".join(dict.fromkeys(map(str, FORMATS)))
        unlabelled = "" if named else pairs.unlabelled(pair, record)
        raise UserError(f"{place}: {unlabelled or misfit(record, named, known)}")
    fits = _with_question(fits, keys, record)
    _refuse_ambiguous(fits, record, place)
    chosen = {part: names[0] for part, names in fits[0].columns.items()}
    kind = fits[0].format.kind
    if kind == "completion" and not literal(Parts(record, chosen)):
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


def with_unread(reading: Reading, verdict: str, keys: tuple[str, ...]) -> Reading:
    """The same reading with all that is unread.

    verdict: the column that judges the answer, which may have any name; "" without one.
    keys: the keys within parts that are not read.
    """
    unread = (*(name for name in reading.unread if name != verdict), *keys)
    ignored = reading.columns.get(VERDICT, verdict)
    if ignored != verdict:
        unread = (*unread, ignored)
    if unread == reading.unread:
        return reading
    return _shared(reading.kind, tuple(reading.columns.items()), reading.format, unread)


def _comes_before_pair(fit: Fit) -> bool:
    """Tell if a format is taken although two columns have the names of a pair of texts."""
    if fit.format.name == "labelled":
        return fit.exact
    return fit.format.name not in ("text", "document")


def _with_question(
    fits: tuple[Fit, ...], keys: Iterable[tuple[str, str]], record: Mapping[str, Any]
) -> tuple[Fit, ...]:
    """The formats; answers beside a conversation that ends in a question answer this question.

    LLaMA-Factory writes preferences like this: conversations, chosen, rejected.
    keys: each column with its name in the tables.
    """
    talks = ((part, column) for column, part in keys if part in ("messages", "conversations"))
    for part, column in talks:
        if ends_in_question(written_lists.read(record[column])):
            for fit in fits:
                if fit.format.name in ("preference", "completion") and "prompt" not in fit.columns:
                    return (replace(fit, columns={**fit.columns, part: (column,)}),)
    return fits


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


def parts_of(name: str) -> str:
    """The parts of a format as a phrase; name: of the format, or of a kind of rows."""
    return next(str(form) for form in FORMATS if form.name == name)


@lru_cache(maxsize=1024)
def _fits(keys: tuple[tuple[str, str], ...], named: tuple[tuple[str, str], ...]) -> tuple[Fit, ...]:
    """The formats that a record with these columns may have, the likeliest first.

    keys: each column with its name in the tables. named: the (part, column) pairs of
    `data.columns`.
    """
    names = dict(keys)
    present = {part for part, column in named if column in names}
    # If the user names columns, others are guessed only if nothing fits without a guess: then
    # {text: body} means a text, though a column "category" could have been its label.
    for guess in (False, True) if named else (True,):
        candidates = [_fit(form, names, dict(named), guess) for form in FORMATS]
        fits = [fit for fit in candidates if fit and present <= set(fit.columns)]
        if fits:
            break
    # A document with its answer is not read as a text alone, and anything else comes before it.
    others = [fit for fit in fits if fit.format.name not in ("document", "text")]
    certain = [fit for fit in fits if fit.format.name != "document"]
    fits = certain if others else fits[:1]
    early = [fit for fit in fits if not fit.late]
    fits = early if any(fit.format.name != "text" for fit in early) else fits
    needs = [set(fit.format.needs) for fit in fits]
    # A text with a label is not read as a text alone.
    return tuple(f for f in fits if not any(set(f.format.needs) < other for other in needs))


def _fit(form: Format, names: dict[str, str], named: dict[str, str], guess: bool) -> Fit | None:
    """The columns of each part of one format; None if one that it needs is missing."""
    parts = (*form.needs, *form.may)
    taken = {column for part, column in named.items() if part in parts}
    columns: dict[str, tuple[str, ...]] = {}
    exact, late = True, False
    for part in parts:
        free = {names[name]: name for name in reversed(names) if name not in taken}
        if part in named:
            matches = tuple(name for name in names if name == named[part])
        elif part in free:
            matches = (free[part],)
        elif guess or part in form.may:
            tables = DOCUMENT_ALIASES if form.name == "document" else {}
            matches = of_document(part, free) if part in tables else aliased(part, parts, free)
            if matches and part in form.needs:
                exact, late = False, late or is_late(names[matches[0]], matches[0])
        else:
            matches = ()
        if matches:
            columns[part] = matches
            taken.update(matches)
        elif part in form.needs:
            return None
    return Fit(form, columns, exact, late)


def _shown(fit: Fit) -> str:
    """A format and its columns, as a phrase."""
    columns = ", ".join(repr(fit.columns[part][0]) for part in fit.format.needs)
    return f"{fit.format} (in {columns})"
