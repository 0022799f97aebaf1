"""Prompts and answers for a model that reads the one and writes the other: encoder and decoder."""

from collections.abc import Mapping, Sequence

from hanse.data.formats import Row
from hanse.data.labelled import label_words, prompts
from hanse.data.passages import asked, last_answer
from hanse.data.tokens import Tokenizer, encode
from hanse.errors import UserError
from hanse.values import IGNORED, Example


def paired(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    labels: Mapping[str, str],
    template: str,
    max_length: int,
) -> list[Example]:
    """The examples of rows: `prompt` tokens that are read, behind them those of the answer.

    max_length: most tokens of the one, and of the other. Of a conversation that is too long the
        beginning is cut, of other prompts and of answers the end.
    A conversation's last answer alone is learned. Raises UserError for a text without a prompt.
    """
    front, back = marks(tokenizer)
    room = max_length - len(front) - len(back)
    sources = _sources(rows, tokenizer, template, room)
    answers = [_answer(row, labels or label_words(rows, labels)) for row in rows]
    targets = _targets(answers, tokenizer, max_length)
    result = []
    for row, ids, answer, target in zip(rows, sources, answers, targets, strict=True):
        source = (*front, *ids, *back)
        if not source or not target:
            raise UserError(
                f"{row.place}: to this tokenizer the prompt or the answer is nothing at all; mend "
                "the row, or drop it."
            )
        learned = (*(IGNORED for _ in source), *target)
        result.append(Example((*source, *target), learned, prompt=len(source), answer=answer))
    return result


def marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer puts before every text, and what behind it."""
    whole, [inner] = list(tokenizer("a")["input_ids"]), encode(tokenizer, ["a"])
    starts = range(len(whole) - len(inner) + 1)
    at = next((start for start in starts if whole[start : start + len(inner)] == inner), 0)
    return tuple(whole[:at]), tuple(whole[at + len(inner) :])


def _sources(
    rows: Sequence[Row], tokenizer: Tokenizer, template: str, room: int
) -> list[list[int]]:
    """The tokens of what each row asks, without the tokenizer's marks, at most `room`."""
    found: dict[int, list[int]] = {}
    labelled = [index for index, row in enumerate(rows) if row.kind == "labelled"]
    filled = prompts([rows[index] for index in labelled], tokenizer, template, room, bare=True)
    found.update(zip(labelled, filled, strict=True))
    other = [index for index in range(len(rows)) if index not in found]
    texts = [_asked(rows[index], tokenizer) for index in other]
    for index, ids in zip(other, encode(tokenizer, texts), strict=True):
        gone = max(len(ids) - room, 0)
        found[index] = ids[gone:] if rows[index].messages else ids[: len(ids) - gone]
    return [found[index] for index in range(len(rows))]


def _asked(row: Row, tokenizer: Tokenizer) -> str:
    """What a row asks, as text."""
    if row.kind == "messages":
        return asked(row, tokenizer)
    if row.kind == "text" or not row.prompt.strip():
        raise UserError(
            f"{row.place} has nothing that asks for an answer, which an encoder-decoder needs; "
            "give prompt and completion, messages, or text and label, or take a causal language "
            "model, such as smollm2-135m."
        )
    return row.prompt


def _answer(row: Row, words: Mapping[str, str]) -> str:
    """What answers a row, as text."""
    if row.kind == "labelled":
        return words[str(row.label)]
    if row.kind == "messages":
        return last_answer(row)
    return row.completion.strip()


def _targets(answers: Sequence[str], tokenizer: Tokenizer, room: int) -> list[tuple[int, ...]]:
    """The tokens of each answer with the tokenizer's marks of an answer, at most `room`."""
    if not answers:
        return []
    encoded = tokenizer(text_target=list(answers), verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    result = []
    for found in encoded:
        # A tokenizer without marks of its own would never say that an answer ends.
        ids = [*found] if end is None or found[-1:] == [end] else [*found, end]
        result.append(tuple(ids if len(ids) <= room else ids[:room]))
    return result
