"""Tokenizes preferences: two answers to one prompt, a better one and a worse one."""

from collections.abc import Iterator, Sequence

from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.formats.turns import CALLS, turn, unlearned
from hanse.data.tokenization.text import passages
from hanse.data.tokenization.tokenizer import Tokenizer
from hanse.errors import UserError


def pairs(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Example]:
    """The examples of preferences: the prompt with the chosen answer, then with the rejected one.

    max_length: most tokens of the prompt with each answer; both lose the same part of a prompt that
        is too long.
    Raises UserError for a row whose answers differ only in what is cut.
    """
    answered = [text for row in rows for text in _answered(row)]
    examples = passages(answered, tokenizer, max_length, answers=2)
    result = []
    for row, chosen, rejected in zip(rows, examples[::2], examples[1::2], strict=True):
        if chosen.ids == rejected.ids:
            raise UserError(
                f"{row.place}: with max_length {max_length} the chosen and the rejected answer "
                "have the same tokens; raise max_length, or drop the row."
            )
        pair = Example(
            chosen.ids + rejected.ids,
            chosen.labels + rejected.labels,
            prompt=chosen.prompt,
            answer=chosen.answer,
            lost=chosen.lost | rejected.lost,
            missing=chosen.missing + rejected.missing,
            rejected=len(chosen),
        )
        result.append(pair)
    return result


def _answered(row: Row) -> Iterator[Row]:
    """The prompt of a preference with each of its answers, which alone is learned."""
    answers = ((row.chosen, row.chosen_calls), (row.rejected, row.rejected_calls))
    for answer, calls in answers:
        if row.messages:
            last = {**turn("assistant", answer), **({CALLS: calls} if calls else {})}
            messages = (*unlearned(row.messages), last)
            yield Row(messages=messages, tools=row.tools, place=row.place)
        else:
            yield Row(prompt=row.prompt, completion=answer, place=row.place)
