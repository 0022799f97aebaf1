"""Prompts and answers for a model that reads the one and writes the other: encoder and decoder."""

from collections.abc import Mapping, Sequence

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.conversations import asked, last_answer
from hanse.data.tokenization.label_words import label_words, prompts
from hanse.data.tokenization.shortening import Measure, shortened
from hanse.data.tokenization.tokenizer import Tokenizer, encode
from hanse.errors import UserError


def paired(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    labels: Mapping[str, str],
    template: str,
    max_length: int,
) -> list[Example]:
    """The examples of rows: `prompt` tokens that are read, behind them those of the answer.

    max_length: most tokens of the one, and of the other. A conversation that is too long loses its
        earlier turns, other prompts and answers their end.
    A conversation's last answer alone is learned. Raises UserError for a text without a prompt.
    """
    front, back = marks(tokenizer)
    room = max_length - len(front) - len(back)
    sources = _sources(rows, tokenizer, template, room)
    answers = [_answer(row, labels or label_words(rows, labels)) for row in rows]
    targets = _targets(answers, tokenizer)
    result = []
    for row, (ids, lost), answer, whole in zip(rows, sources, answers, targets, strict=True):
        source, target = (*front, *ids, *back), whole[:max_length]
        if not source or not target:
            raise UserError(
                f"{row.place}: to this tokenizer the prompt or the answer is nothing at all; mend "
                "the row, or drop it."
            )
        learned = (*(IGNORED for _ in source), *target)
        lost |= Lost.ANSWER if len(whole) > max_length else Lost.NOTHING
        example = Example((*source, *target), learned, prompt=len(source), answer=answer, lost=lost)
        result.append(example)
    return result


def marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer puts before every text, and what behind it."""
    whole, [inner] = list(tokenizer("a")["input_ids"]), encode(tokenizer, ["a"])
    starts = range(len(whole) - len(inner) + 1)
    at = next((start for start in starts if whole[start : start + len(inner)] == inner), 0)
    return tuple(whole[:at]), tuple(whole[at + len(inner) :])


def _sources(
    rows: Sequence[Row], tokenizer: Tokenizer, template: str, room: int
) -> list[tuple[list[int], Lost]]:
    """The tokens of what each row asks, without the tokenizer's marks, and what of it is cut."""
    found: dict[int, tuple[list[int], Lost]] = {}
    labelled = [index for index, row in enumerate(rows) if row.kind == "labelled"]
    filled = prompts([rows[index] for index in labelled], tokenizer, template, room, bare=True)
    found.update(zip(labelled, zip(*filled, strict=True), strict=True))
    other = [index for index in range(len(rows)) if index not in found]
    texts = [_asked(rows[index], tokenizer) for index in other]
    for index, ids in zip(other, encode(tokenizer, texts), strict=True):
        if len(ids) <= room:
            found[index] = ids, Lost.NOTHING
        elif rows[index].messages:
            found[index] = _short(rows[index], tokenizer, room)
        else:
            found[index] = ids[:room], Lost.TEXT
    return [found[index] for index in range(len(rows))]


def _short(row: Row, tokenizer: Tokenizer, room: int) -> tuple[list[int], Lost]:
    """What a long conversation asks, in at most `room` tokens, and what is left out."""

    def tokens(row: Row) -> list[int]:
        return encode(tokenizer, [asked(row, tokenizer)])[0]

    def size(row: Row) -> int:
        return len(tokens(row))

    short, lost = shortened(row, Measure(whole=size, asked=size), room)
    if size(short) > room:
        raise UserError(
            f"{row.place}: max_length leaves {room} tokens to read, and the chat template alone "
            f"takes {size(short)}; raise max_length, or drop the row."
        )
    return tokens(short), lost


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


def _targets(answers: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """The tokens of each answer with the tokenizer's marks of an answer."""
    if not answers:
        return []
    encoded = tokenizer(text_target=list(answers), verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    # A tokenizer without marks of its own would never say that an answer ends.
    return [
        tuple(found if end is None or found[-1:] == [end] else [*found, end]) for found in encoded
    ]
