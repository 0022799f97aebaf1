"""Finds the columns of a part by the names that it has in data sets and in other tools."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from hanse.data.formats.cells import empty
from hanse.data.formats.tool_calls import are_tools

TOOLS = "tools"  # the part with the tools that an assistant may call
TRANSCRIPT = "transcript"
PROGRAM = re.compile(r"[\s(){}=;:]")  # a sign that any program has, and hardly any short code
ALIASES = {  # part: its names in other tools, tried if no column has the part's own name
    "messages": ("conversation", "dialogue", "dialog", "chat"),
    "instruction": ("question", "query", "prompt", "input"),
    "input": ("context",),
    "output": ("response", "answer", "answers"),
    TOOLS: ("functions",),
    "words": ("tokens",),
    "tags": ("ner_tags", "pos_tags", "ner", "pos", "upos"),
    "text": (
        *("content", "sentence", "review", "review_text", "review_body", "document", "body"),
        *("comment", "tweet", "post", "article", "abstract", "passage", "utterance"),
        *(TRANSCRIPT, "comment_text", "full_text"),
    ),
    "label": (
        *("labels", "sentiment", "category", "class", "intent", "target", "stars", "rating"),
        *("emotion", "polarity"),
    ),
}
LATE = ("answers", TRANSCRIPT, "comment_text", "full_text")  # names that others precede
# Columns of the format "document", which is tried only if nothing but a text alone fits. Of several
# answers the first in this order is taken.
DOCUMENT_ALIASES = {
    "instruction": (
        *ALIASES["text"],
        *("story", "paper", "report", "email", "news", "source", "source_text", "input_text"),
        *("inputs", "problem", "description", "docstring", "nl", "context", "code"),
    ),
    "output": (
        *("summary", "highlights", "tldr", "tl;dr", "abstract", "summary_text"),
        *("target", "targets", "target_text", "translation", "solution", "answer", "response"),
        *("reply", "code"),
    ),
}
TOOL_NAMES = (TOOLS, *ALIASES[TOOLS])
DECIDED = (*ALIASES["messages"], *TOOL_NAMES, "code")  # names that a column has by its cells alone


def aliased(part: str, parts: Iterable[str], free: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that have a name of `part` in other tools.

    parts: of the format. free: the columns that are no part yet, by their names in the tables.
    Columns with the name of another part come last: "input" is an instruction only if no other
    column is. Columns with late names come after those with others.
    """
    matches = [(alias, free[alias]) for alias in ALIASES.get(part, ()) if alias in free]
    matches = [match for match in matches if match[0] not in parts] or matches
    return _without_late(matches)


def of_document(part: str, free: Mapping[str, str]) -> tuple[str, ...]:
    """The column of a document or of its answer; a column that may be both is its answer.

    The names of a text precede the others of a document.
    """
    answer = next((alias for alias in DOCUMENT_ALIASES["output"] if alias in free), "")
    if part == "output":
        return (free[answer],) if answer else ()
    if "text" in free:
        return (free["text"],)
    names = [alias for alias in DOCUMENT_ALIASES[part] if alias in free and alias != answer]
    texts = [alias for alias in names if alias in ALIASES["text"]]
    return _without_late([(alias, free[alias]) for alias in texts or names])


def _without_late(matches: list[tuple[str, str]]) -> tuple[str, ...]:
    """The columns of (name, column) pairs; those with late names only if there are no others."""
    early = [match for match in matches if not is_late(*match)]
    return tuple(column for _, column in early or matches)


def is_late(name: str, column: str) -> bool:
    """Tell if a column's name is one that the other names of its part precede."""
    return name in LATE or name != _lower(column)


def name_of(column: str, value: Any) -> str:
    """A column's name in the tables, "transcript" for a dialogue that is written as one text.

    A code of one word, such as "en", is no program, and words are no tools: they have no name.
    """
    name = folded(column)
    if name in ALIASES["messages"]:
        text = isinstance(value, str) and value.lstrip()[:1] != "["
        return TRANSCRIPT if text or empty(value) else name
    if name == "code":
        return name if isinstance(value, str) and PROGRAM.search(value) else ""
    return "" if name in TOOL_NAMES and not are_tools(value) else name


def decided(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The names in the tables of columns whose cells decide it: the name by most of the cells."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for column, value in record.items():
            if folded(column) in DECIDED and not empty(value):
                counts.setdefault(column, Counter())[name_of(column, value)] += 1
    return {column: names.most_common(1)[0][0] for column, names in counts.items()}


@lru_cache(maxsize=1024)
def folded(column: str) -> str:
    """A column's name in the spelling of the tables: Review Text, reviewText → review_text."""
    return _lower(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip()))


def _lower(column: str) -> str:
    """A column's name in lower case, with _ between words that are apart."""
    return column.strip().casefold().replace(" ", "_").replace("-", "_")
