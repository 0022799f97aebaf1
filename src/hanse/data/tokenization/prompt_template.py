"""The template of a labelled row's prompt, whose fields are columns of the row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from hanse.data.formats.cells import listed
from hanse.data.formats.row import Row
from hanse.errors import UserError
from hanse.registry import suggestion

TEXT, PAIR = "text", "text_pair"  # our names of a row's text, and of the second text of a pair
LABEL = "label"


@dataclass(frozen=True)
class PromptTemplate:
    """A template: the fields, and the texts around them, one more than there are fields."""

    texts: tuple[str, ...]
    fields: tuple[str, ...]

    def fill(self, row: Row) -> tuple[str, ...]:
        """The pieces of a row's prompt: a text of the template, a field's value, a text, ….

        Raises UserError for a field that is the label, or a column that the row does not have.
        """
        values = [*(_value(row, field) for field in self.fields), ""]
        pieces = [piece for pair in zip(self.texts, values, strict=True) for piece in pair]
        return tuple(pieces[:-1])


@lru_cache(maxsize=64)
def parse(template: str) -> PromptTemplate:
    """The template of a text with {column} in it; raises UserError if it cannot be filled."""
    try:
        pieces = [*Formatter().parse(template)]
    except ValueError:
        pieces = []
    fields = [name for _, name, _, _ in pieces if name is not None]
    # A width, {text:>9999999}, could fill the memory; an attribute could read any object.
    odd = any(form or turn for _, _, form, turn in pieces) or any(
        not name or set(name) & set(".[]") for name in fields
    )
    if odd or not fields or len(set(fields)) < len(fields):
        raise UserError(
            f"the template is {template!r:.200}; write {{text}} exactly once in it, or the names "
            "of columns in braces, once each, and {{ for a brace."
        )
    texts, literal = [], ""
    for text, name, _, _ in pieces:
        literal += text
        if name is not None:
            texts.append(literal)
            literal = ""
    # The space before the answer belongs to the label word's own tokens.
    return PromptTemplate((*texts, literal.rstrip(" ")), tuple(fields))


def refuse_unfit(rows: Sequence[Row], template: str) -> None:
    """Raise UserError for a template that rows cannot fill, or that leaves out a second text."""
    parsed = parse(template)
    for row in rows:
        parsed.fill(row)
    pair = next((row for row in rows if row.text_pair), None)
    if pair is None:
        return
    first, second = names(pair)
    if not {PAIR, second} & set(parsed.fields):
        raise UserError(
            f"{pair.place} has two texts, {first!r} and {second!r}, and data.template "
            f"{template!r:.100} has a place for one; write both in braces, such as data.template: "
            f'"{{{first}}}\\n{{{second}}}\\nLabel:".'
        )


def names(row: Row) -> tuple[str, str]:
    """The columns of a pair of texts in the user's file."""
    columns = row.reading.columns if row.reading else {}
    return columns.get(TEXT, TEXT), columns.get(PAIR, PAIR)


def _value(row: Row, field: str) -> str:
    """The value of a field: the row's text, its second text, or another column but the label."""
    first, second = names(row)
    if field in (TEXT, first):
        return row.text
    if row.text_pair and field in (PAIR, second):
        return row.text_pair
    labels = (LABEL, row.reading.columns.get(LABEL, LABEL) if row.reading else LABEL)
    if field in labels:
        raise UserError(
            f"{row.place}: data.template names the label {field!r}, which the model must answer; "
            f'end the template before it, such as data.template: "{{{first}}}\\nLabel:".'
        )
    if field not in row.fields:
        others = (name for name in row.fields if name not in labels)
        known = dict.fromkeys((first, *([second] if row.text_pair else []), *others))
        raise UserError(
            f"{row.place}: data.template names the column {field!r}{suggestion(field, known)}, "
            f"which the row does not have; it has {listed(known)}."
        )
    return row.fields[field]
