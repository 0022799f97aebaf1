"""Rows of text and label as prompts that a label word answers."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from string import Formatter

from hanse.data.example import Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead, shared
from hanse.errors import UserError

MARK = "\0text\0"  # stands for the text while a template is taken apart; no template holds it


def label_words(rows: Sequence[Row], labels: Mapping[str, str]) -> dict[str, str]:
    """The word of each label, in the order of the choices.

    Empty `labels` means that the values in the data, sorted, are the words. To have the same
    choices at every client, call this once with the rows of all of them.
    """
    if labels:
        return dict(labels)
    return {value: value for value in sorted({row.label for row in rows if row.label is not None})}


def answers(tokenizer: Tokenizer, words: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The tokens of " word" for each label."""
    # Behind a colon, since some tokenizers put a space of their own before whatever comes first.
    texts = [":", *(f": {word}" for word in words.values())]
    (colon, *whole) = encode(tokenizer, texts)
    alone = encode(tokenizer, [f" {word}" for word in words.values()])
    return {
        label: tuple(ids[len(colon) :] if ids[: len(colon)] == colon else plain)
        for label, ids, plain in zip(words, whole, alone, strict=True)
    }


def refuse_alike(words: Mapping[str, str], known: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError if a word's tokens are, or begin, another's: the longer could never win."""
    for a, b in permutations(words, 2):
        if known[a] == known[b][: len(known[a])]:
            same = "the same tokens as" if known[a] == known[b] else "tokens that begin"
            raise UserError(
                f"the label words {words[a]!r} and {words[b]!r} cannot be told apart: to this "
                f"tokenizer the first has {same} the second; set other words in `labels`."
            )


def refuse_unknown(rows: Sequence[Row], words: Mapping[str, str]) -> None:
    """Raise UserError for a row whose label has no word."""
    for row in rows:
        if row.label not in words:
            raise UserError(
                f"{row.place}: the label {row.label!r} is not one of "
                f"{', '.join(map(repr, words))}; add it to `labels`, mend the row, or use the "
                "values as words with data.labels={}."
            )


def refuse_template(template: str) -> None:
    """Raise UserError for a template that cannot be filled."""
    _parts(template)


def prompts(
    rows: Sequence[Row], tokenizer: Tokenizer, template: str, room: int, bare: bool = False
) -> tuple[list[list[int]], list[Lost]]:
    """The tokens of the template filled with each row's text, at most `room`, and what is cut.

    bare: without a token that the tokenizer puts before every text.
    What is too long loses the end of its text, never a part of the template.
    """
    before, after = _parts(template)
    front = [] if bare else lead(tokenizer)
    room -= len(front)
    filled = encode(tokenizer, [before + row.text + after for row in rows])
    long = [index for index, ids in enumerate(filled) if len(ids) > room]
    open_ended = encode(tokenizer, [before + rows[index].text for index in long])
    start = encode(tokenizer, [before])[0] if before else []
    for index, ids in zip(long, open_ended, strict=True):
        whole = filled[index]
        end = shared(ids, whole)  # of the text; a token that also holds template stays
        keep = end - (len(whole) - room)
        if keep <= shared(start, whole):
            raise UserError(
                f"{rows[index].place}: the template and the label leave no room for the text; "
                f"raise max_length by {shared(start, whole) - keep + 1} or more, or shorten the "
                "template."
            )
        filled[index] = whole[:keep] + whole[end:]
    result = [front + ids for ids in filled]
    if [] in result:
        raise UserError(
            f"{rows[result.index([])].place}: this tokenizer makes no tokens of the text; drop "
            "the row."
        )
    lost = [Lost.NOTHING] * len(rows)
    for index in long:
        lost[index] = Lost.TEXT
    return result, lost


def _parts(template: str) -> tuple[str, str]:
    """What stands before and after {text}."""
    try:
        pieces = [*Formatter().parse(template)]
    except ValueError:
        pieces = []
    fields = [(name, form, turn) for _, name, form, turn in pieces if name is not None]
    # A width in a field, {text:>9999999}, would fill memory; an attribute would reach into objects.
    if fields != [("text", "", None)]:
        raise UserError(
            f"the template came as {template!r:.200}; it holds {{text}} exactly once and no other "
            "field; write {{ for a brace."
        )
    before, after = template.format(text=MARK).split(MARK)
    # The space before the answer belongs to the label word's own tokens.
    return before, after.rstrip(" ")
