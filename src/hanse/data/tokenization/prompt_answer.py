"""Tokenizes prompts and answers for a model with an encoder and a decoder."""

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
    """The examples of rows: the tokens that the encoder reads, followed by those of the answer.

    max_length: most tokens of a prompt, and of an answer. A conversation that is too long loses its
        earlier turns; other prompts, and answers, lose their end.
    Only the last answer of a conversation is learned. Raises UserError for a text without a prompt.
    """
    front, back = marks(tokenizer)
    room = max_length - len(front) - len(back)
    sources = _sources(rows, tokenizer, template, room)
    answers = [_answer(row, labels or label_words(rows, labels), tokenizer) for row in rows]
    targets = _targets(answers, tokenizer)
    result = []
    for row, (ids, lost, missing), answer, tokens in zip(
        rows, sources, answers, targets, strict=True
    ):
        source, target = (*front, *ids, *back), tokens[:max_length]
        if not source or not target:
            raise UserError(
                f"{row.place}: this tokenizer makes no tokens of the prompt or of the answer; "
                "correct the row, or drop it."
            )
        learned = (*(IGNORED for _ in source), *target)
        example = Example(
            (*source, *target),
            learned,
            prompt=len(source),
            answer=answer,
            lost=lost | (Lost.ANSWER if len(tokens) > max_length else Lost.NOTHING),
            missing=missing + len(tokens) - len(target),
        )
        result.append(example)
    return result


def marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that a tokenizer puts before every text, and those after it."""
    whole, [inner] = list(tokenizer("a")["input_ids"]), encode(tokenizer, ["a"])
    starts = range(len(whole) - len(inner) + 1)
    at = next((start for start in starts if whole[start : start + len(inner)] == inner), 0)
    return tuple(whole[:at]), tuple(whole[at + len(inner) :])


def _sources(
    rows: Sequence[Row], tokenizer: Tokenizer, template: str, room: int
) -> list[tuple[list[int], Lost, int]]:
    """The tokens of each row's prompt, without special tokens; the parts cut, and their tokens."""
    sources: dict[int, tuple[list[int], Lost, int]] = {}
    labelled = [index for index, row in enumerate(rows) if row.kind == "labelled"]
    filled = prompts([rows[index] for index in labelled], tokenizer, template, room, bare=True)
    for index, ids, missing in zip(labelled, *filled, strict=True):
        sources[index] = ids, Lost.TEXT if missing else Lost.NOTHING, missing
    other = [index for index in range(len(rows)) if index not in sources]
    texts = [_asked(rows[index], tokenizer) for index in other]
    for index, ids in zip(other, encode(tokenizer, texts), strict=True):
        if len(ids) <= room:
            sources[index] = ids, Lost.NOTHING, 0
        elif rows[index].messages:
            short, lost = _short(rows[index], tokenizer, room)
            sources[index] = short, lost, len(ids) - len(short)
        else:
            sources[index] = ids[:room], Lost.TEXT, len(ids) - room
    return [sources[index] for index in range(len(rows))]


def _short(row: Row, tokenizer: Tokenizer, room: int) -> tuple[list[int], Lost]:
    """The prompt of a long conversation in at most `room` tokens, and the parts left out."""

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
    """The prompt of a row, as text."""
    if row.kind == "messages":
        return asked(row, tokenizer)
    if row.kind == "text" or not row.prompt.strip():
        raise UserError(
            f"{row.place} has no prompt, which an encoder-decoder needs; "
            "give prompt and completion, messages, or text and label, or take a causal language "
            "model, such as smollm2-135m."
        )
    return row.prompt


def _answer(row: Row, words: Mapping[str, str], tokenizer: Tokenizer) -> str:
    """The answer of a row, as text."""
    if row.kind == "labelled":
        return words[str(row.label)]
    if row.kind == "messages":
        return last_answer(row, tokenizer)
    return row.completion.strip()


def _targets(answers: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """The tokens of each answer, with the tokenizer's special tokens for answers."""
    if not answers:
        return []
    encoded = tokenizer(text_target=list(answers), verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    # Some tokenizers add no end of their own, and a model would not learn that an answer ends.
    return [tuple(ids if end is None or ids[-1:] == [end] else [*ids, end]) for ids in encoded]
