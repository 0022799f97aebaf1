"""Tokenizes answers with a verdict: true, false or a number."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.formats.turns import answers, unlearned
from hanse.data.tokenization.text import passages
from hanse.data.tokenization.tokenizer import Tokenizer
from hanse.errors import UserError

WORDS = {"true": 1.0, "false": 0.0}


def judged(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Example]:
    """The examples of rows: each prompt with its last answer, and the verdict on that answer."""
    examples = passages([_one_answer(row) for row in rows], tokenizer, max_length)
    return [
        replace(example, verdict=verdict(row)) for row, example in zip(rows, examples, strict=True)
    ]


def verdict(row: Row) -> float:
    """The verdict on a row's answer as a number; raises UserError if there is none."""
    text = row.verdict.lower()
    if not text:
        raise UserError(
            f"{row.place} has no verdict on its answer; give it a column label with true, false or "
            "a number, or name such a column with data.columns: {verdict: …}."
        )
    try:
        value = WORDS[text] if text in WORDS else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{row.place}: the verdict is {row.verdict!r:.40}; a verdict is true, false or a "
            "number; correct it, drop the row, or name another column with data.columns: "
            "{verdict: …}."
        )
    return value


def _one_answer(row: Row) -> Row:
    """The row with its last answer alone to learn."""
    if not row.messages:
        return row
    last = answers(row.messages)[-1]
    messages = (*unlearned(row.messages[:last]), row.messages[last])
    return replace(row, messages=messages)
