"""Conversations, completions and plain texts as tokens, with a mask of what is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jinja2 import TemplateError

from hanse.data.formats import Row
from hanse.data.tokens import Tokenizer, encode, lead, shared, targets
from hanse.data.turns import answers
from hanse.errors import UserError
from hanse.values import IGNORED, Example

SAID = ("role", "content")  # what a chat template is given of a turn
# For a tokenizer without a chat template: "role: content", a line each; the end-of-text token,
# where there is one, closes what the assistant says.
PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' and eos_token is defined %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Passage:
    """A text and the parts of it that are learned.

    learned: from which character to which, in order.
    answers: what each of them answers with; empty if they answer nothing.
    open: the tokenizer's own first token goes in front.
    closed: the end-of-text token follows, and is learned.
    """

    text: str
    learned: tuple[tuple[int, int], ...]
    answers: tuple[str, ...] = ()
    open: bool = True
    closed: bool = True


def passages(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Example]:
    """The examples of rows that are not labelled, each at most `max_length` tokens.

    Raises UserError for a row of which nothing would be left to learn.
    """
    found = [_passage(row, tokenizer) for row in rows]
    whole = encode(tokenizer, [passage.text for passage in found])
    front = lead(tokenizer)
    close = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    result = []
    edges = _edges(found, whole, tokenizer)
    for row, passage, ids, edge in zip(rows, found, whole, edges, strict=True):
        learned = [False] * len(ids)
        for start, end in zip(edge[::2], edge[1::2], strict=True):
            learned[start:end] = [True] * (end - start)
        if passage.open:
            ids, learned = front + ids, [False] * len(front) + learned
            edge = [len(front) + end for end in edge]
        if passage.closed and ids[-1:] != close:
            ids, learned = ids + close, learned + [True] * len(close)
        example, gone = _cut(row, ids, learned, max_length, tokenizer.bos_token_id)
        result.append(_answered(example, [start - gone for start in edge[::2]], passage.answers))
    return result


def _answered(example: Example, starts: list[int], answers: tuple[str, ...]) -> Example:
    """The example with its last answer of which something is left, and the prompt before it."""
    left = [pair for pair in zip(starts, answers, strict=False) if pair[0] < len(example)]
    if not left:
        return example
    prompt, answer = left[-1]
    return replace(example, prompt=prompt, answer=answer)


def question(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> list[int]:
    """The tokens that ask for an answer to a conversation, as those do that are trained on."""
    row = Row(messages=tuple(messages), place="the conversation")
    text = _written(row, len(messages), tokenizer, ask=True)
    return ([] if tokenizer.chat_template else lead(tokenizer)) + encode(tokenizer, [text])[0]


def asked(row: Row, tokenizer: Tokenizer) -> str:
    """What stands before a conversation's last answer, and asks for it."""
    return _written(row, answers(row.messages)[-1], tokenizer, ask=True)


def last_answer(row: Row) -> str:
    """What the assistant said last in a conversation."""
    return row.messages[answers(row.messages)[-1]]["content"]


def _edges(
    found: Sequence[Passage], whole: Sequence[list[int]], tokenizer: Tokenizer
) -> list[list[int]]:
    """The tokens at which each passage's learned parts begin and end, in turn.

    A character's token is where the tokens of the text up to there part from those of the whole.
    That needs no offsets, and so holds for every kind of tokenizer.
    """
    inner = [
        (index, end)
        for index, passage in enumerate(found)
        for span in passage.learned
        for end in span
        if 0 < end < len(passage.text)
    ]
    upto = encode(tokenizer, [found[index].text[:end] for index, end in inner])
    at = {key: shared(ids, whole[key[0]]) for key, ids in zip(inner, upto, strict=True)}
    return [
        [
            at.get((index, end), len(whole[index]) if end else 0)
            for span in passage.learned
            for end in span
        ]
        for index, passage in enumerate(found)
    ]


def _cut(
    row: Row, ids: list[int], learned: list[bool], max_length: int, start: int | None
) -> tuple[Example, int]:
    """At most max_length tokens, and how many are gone from the prompt.

    The prompt loses its left, but keeps half if it needs it.
    """
    prompt = learned.index(True) if True in learned else len(ids)
    room = max(max_length - (len(ids) - prompt), min(prompt, max_length // 2))
    gone = max(prompt - room, 0)
    first = int(gone > 0 and ids[0] == start)  # the first token stays what the model expects
    kept = [*range(first), *range(gone + first, len(ids))][:max_length]
    ids, learned = [ids[i] for i in kept], [learned[i] for i in kept]
    labels = targets(ids, learned)
    if all(label == IGNORED for label in labels):
        raise UserError(
            f"{row.place}: with max_length {max_length} nothing is left to learn of this row; "
            "raise max_length, or drop the row."
        )
    return Example(tuple(ids), labels), gone


def _passage(row: Row, tokenizer: Tokenizer) -> Passage:
    if row.kind == "messages":
        return _conversation(row, tokenizer)
    if row.kind == "completion":
        text = row.prompt + row.completion
        return Passage(text, ((len(row.prompt), len(text)),), (row.completion,))
    return Passage(row.text, ((0, len(row.text)),))


def _conversation(row: Row, tokenizer: Tokenizer) -> Passage:
    """The conversation up to the assistant's last turn; its turns are learned, with their end.

    An assistant turn is what its rendering adds to the one before, behind the header that asks
    for it. A turn that the template writes otherwise once others follow (as Qwen3 does with its
    thoughts) is read and not learned, except the last.
    """
    turns = answers(row.messages)
    special = tuple(token for token in tokenizer.all_special_tokens if token)
    text = _written(row, turns[-1] + 1, tokenizer)
    learned, texts = [], []
    for turn in turns:
        head = _written(row, turn, tokenizer, ask=True)
        said = _written(row, turn + 1, tokenizer) if turn < turns[-1] else text
        if text.startswith(said) and said.startswith(head):
            # Generation stops at the end-of-turn token, so a line break after it says nothing.
            bare = said.rstrip()
            learned.append((len(head), len(bare if bare.endswith(special) else said)))
            texts.append(row.messages[turn]["content"])
        elif turn == turns[-1]:
            raise UserError(
                f"{row.place}: this tokenizer's chat template does not ask for an answer in the "
                "way it writes one, so what to learn cannot be told; use prompt and completion."
            )
    own = bool(tokenizer.chat_template)
    return Passage(text, tuple(learned), tuple(texts), open=not own, closed=False)


def _written(row: Row, count: int, tokenizer: Tokenizer, ask: bool = False) -> str:
    """The first `count` messages as the chat template writes them, and the header of an answer."""
    try:
        return str(
            tokenizer.apply_chat_template(
                [{key: message[key] for key in SAID} for message in row.messages[:count]],
                chat_template=None if tokenizer.chat_template else PLAIN,
                tokenize=False,
                add_generation_prompt=ask,
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(
            f"{row.place}: this tokenizer's chat template refuses these messages: {error}; "
            "change their roles or their order."
        ) from None
