"""Which column of a record is which part of which format: two tables, and the search in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hanse.data.formats.cells import listed
from hanse.data.formats.contents import literal
from hanse.errors import UserError
from hanse.registry import suggestion


@dataclass(frozen=True)
class Format:
    """A format: the kind of rows that it gives, the parts that it needs, and those it may have."""

    name: str
    kind: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The columns that make it, as a phrase."""
        return " + ".join(("prompt", *self.needs) if "prompt" in self.may else self.needs)


ASKED = ("prompt", "instruction", "system")  # what comes before an answer that has a name
FORMATS = (  # in the order in which they are looked for
    Format("messages", "messages", ("messages",), ("system",)),
    Format("sharegpt", "messages", ("conversations",), ("system",)),
    Format("preference", "preference", ("chosen", "rejected"), ASKED),
    Format("completion", "completion", ("completion",), ASKED),
    Format("alpaca", "messages", ("instruction", "output"), ("input", "system", "history")),
    Format("tagged", "tagged", ("words", "tags")),
    Format("labelled", "labelled", ("text", "label")),
    Format("text", "text", ("text",)),
)
ALIASES = {  # part: what other tools call it; looked for if no column has the part's own name
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
    """What the columns of a record are taken for.

    kind: of the row that it becomes; columns: part → the file's column; format: as in FORMATS.
    """

    kind: str
    columns: Mapping[str, str]
    format: str


@dataclass(frozen=True)
class Fit:
    """A format that a record may have, and the columns that each of its parts may be.

    exact: every part that it needs has its own name, or the one that `data.columns` says.
    """

    format: Format
    columns: Mapping[str, tuple[str, ...]]
    exact: bool


def reading(
    record: Mapping[str, Any], columns: Mapping[str, str] | None = None, place: str = "the record"
) -> Reading:
    """What the columns of a record are taken for; `columns` (part → column) comes first.

    Raises UserError with the `place` if no format fits, or if it cannot be told which.
    """
    wanted = columns or {}
    fits = _fits(tuple(record), tuple(wanted.items()))
    if not fits:
        raise UserError(f"{place}: {_misfit(record, wanted)}")
    found = fits[0]
    if len(fits) > 1 and not found.exact:
        ways = " or ".join(_shown(fit) for fit in fits)
        last = fits[-1]
        part = last.format.needs[0]
        raise UserError(
            f"{place}: the columns {listed(record)} can be read as {ways}; say which, such as "
            f"data.columns: {{{part}: {last.columns[part][0]}}}."
        )
    for part, names in found.columns.items():
        if len(names) > 1:
            raise UserError(
                f"{place}: the part {part!r} may be the column {' or '.join(map(repr, names))}; "
                f"say which, such as data.columns: {{{part}: {names[0]}}}."
            )
    taken = {part: names[0] for part, names in found.columns.items()}
    kind = found.format.kind
    if kind == "completion" and not literal({part: record[name] for part, name in taken.items()}):
        kind = "messages"
    return Reading(kind, taken, found.format.name)


def check(columns: Mapping[str, str]) -> None:
    """Raise UserError if the keys of `data.columns` are not parts of a format."""
    for part in columns:
        if part not in PARTS:
            raise UserError(
                f"data.columns has {part!r}{suggestion(part, PARTS)} on its left, where our names "
                f"stand: {', '.join(PARTS)}; write {{ours: theirs}}."
            )


def parts_of(kind: str) -> str:
    """What a kind of rows has, as a phrase for an error message."""
    return next(str(form) for form in FORMATS if form.kind == kind)


@lru_cache(maxsize=1024)
def _fits(names: tuple[str, ...], wanted: tuple[tuple[str, str], ...]) -> tuple[Fit, ...]:
    """The formats that a record with these columns may have, the likeliest first."""
    there = {part for part, theirs in wanted if theirs in names}
    # Where the user names columns, others are guessed only if nothing fits without guessing: so
    # {text: body} means a text, though a column "category" might have been its label.
    for guess in (False, True) if wanted else (True,):
        found = [_fit(form, names, dict(wanted), guess) for form in FORMATS]
        fits = [fit for fit in found if fit and there <= set(fit.columns)]
        if fits:
            break
    needs = [set(fit.format.needs) for fit in fits]
    # A text with a label is no mere text.
    return tuple(f for f in fits if not any(set(f.format.needs) < other for other in needs))


def _fit(form: Format, names: tuple[str, ...], wanted: dict[str, str], guess: bool) -> Fit | None:
    """The columns of each part of one format; None if one that it needs is not there."""
    parts = (*form.needs, *form.may)
    taken = {theirs for part, theirs in wanted.items() if part in parts}
    found: dict[str, tuple[str, ...]] = {}
    exact = True
    for part in parts:
        free = {_folded(name): name for name in reversed(names) if name not in taken}
        free |= {name: name for name in free.values()}  # as it is spelled comes first
        if part in wanted:
            here = tuple(name for name in names if name == wanted[part])
        elif part in free:
            here = (free[part],)
        elif guess or part in form.may:
            here = tuple(free[alias] for alias in ALIASES.get(part, ()) if alias in free)
            # "input" may be the instruction, but rather is the input of one that is there.
            here = tuple(name for name in here if _folded(name) not in parts) or here
            exact = exact and (not here or part in form.may)
        else:
            here = ()
        if here:
            found[part] = here
            taken.update(here)
        elif part in form.needs:
            return None
    return Fit(form, found, exact)


def _folded(name: str) -> str:
    """A column's name as the tables write it: "Review Text" is review_text."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _shown(fit: Fit) -> str:
    """A way to read a record, as a phrase."""
    taken = ", ".join(repr(fit.columns[part][0]) for part in fit.format.needs)
    return f"{fit.format} (in {taken})"


def _misfit(record: Mapping[str, Any], wanted: Mapping[str, str]) -> str:
    """What to say if no format fits."""
    for part, theirs in wanted.items():
        if theirs not in record:
            return (
                f"data.columns takes {part} from {theirs!r}, which is not there"
                f"{suggestion(theirs, record)}; there are {listed(record)}."
            )
    known = ", ".join(map(str, FORMATS))
    # Of those that YAML takes without quotes, the one that looks most like a text.
    plain = [name for name in record if re.fullmatch(r"[^\W\d][\w .-]*", name)]
    texts = [name for name in plain if isinstance(record[name], str)]
    longest = max(texts, key=lambda name: len(record[name]), default="…")
    first = "" if len(plain) == len(record) else " (of a table, the first line names the columns)"
    return (
        f"the columns {listed(record)} fit no known format{first}; known are {known}; say which "
        f"column is which, such as data.columns: {{text: {longest:.40}}}."
    )
