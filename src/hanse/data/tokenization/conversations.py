"""Conversations as text by a chat template, with the parts of it that are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanse.data.formats import system_turns
from hanse.data.formats.row import Row
from hanse.data.formats.turns import CALLS, Turn, answers
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead
from hanse.data.tokenization.tool_use import REFUSALS, for_template
from hanse.errors import UserError

# For a tokenizer without a chat template: a line "role: content" for each turn; an assistant's turn
# ends with the end-of-text token, if there is one.
PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' and eos_token is defined %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
MARK = "\ue000call\ue000"  # in place of a tool call; no text contains it


@dataclass(frozen=True)
class Passage:
    """A text and the parts of it that are learned.

    learned: (first character, end) of each learned part, in order.
    answers: the answer in each of these parts; empty if they are no answers.
    open: the tokenizer's first token goes in front.
    closed: the end-of-text token follows, and is learned.
    """

    text: str
    learned: tuple[tuple[int, int], ...]
    answers: tuple[str, ...] = ()
    open: bool = True
    closed: bool = True


def question(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """The tokens of a conversation with the header of an answer, in the form used in training."""
    row = Row(messages=tuple(messages), place="the conversation")
    text = written(row, len(messages), tokenizer, ask=True)
    return ([] if tokenizer.chat_template else lead(tokenizer)) + encode(tokenizer, [text])[0]


def asked(row: Row, tokenizer: Tokenizer) -> str:
    """The text of a conversation up to its last answer, with the answer's header."""
    return written(row, answers(row.messages)[-1], tokenizer, ask=True)


def last_answer(row: Row, tokenizer: Tokenizer) -> str:
    """The last answer of a conversation: its text, or its tool call as the template writes it."""
    turn = answers(row.messages)[-1]
    text = ""
    if CALLS in row.messages[turn]:
        text = written(row, turn + 1, tokenizer).removeprefix(asked(row, tokenizer))
    return _answer_text(row.messages[turn], text, tokenizer)


def _answer_text(message: Turn, text: str, tokenizer: Tokenizer) -> str:
    """An answer without the end of its turn; text: the turn by the template, after its header."""
    if CALLS not in message:
        return str(message["content"])
    text = text.strip()
    return text.removesuffix(next(filter(text.endswith, _special(tokenizer)), ""))


def _special(tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(filter(None, tokenizer.all_special_tokens))


def conversation(row: Row, tokenizer: Tokenizer) -> Passage:
    """A conversation up to its last answer; its answers are learned, with their end-of-turn tokens.

    An answer is the text that its turn adds to the turns before and the answer's header. Some
    templates write a turn differently once others follow (Qwen3 leaves out its thoughts); such a
    turn is read and not learned, unless it is the last.
    """
    turns = answers(row.messages)
    text = written(row, turns[-1] + 1, tokenizer)
    learned, texts = [], []
    for turn in turns:
        span = _answer(row, turn, text, turns[-1], tokenizer)
        if span:
            learned.append(span)
            texts.append(_answer_text(row.messages[turn], text[slice(*span)], tokenizer))
        elif turn == turns[-1]:
            raise UserError(
                f"{row.place}: this tokenizer's chat template does not begin an answer with the "
                "header that asks for one, so the answer cannot be found in the text; use prompt "
                "and completion."
            )
    templated = bool(tokenizer.chat_template)
    return Passage(text, tuple(learned), tuple(texts), open=not templated, closed=False)


def _answer(
    row: Row, turn: int, text: str, last: int, tokenizer: Tokenizer
) -> tuple[int, int] | None:
    """The place of an answer in the text of the conversation up to its last answer.

    None if the template writes the turn differently there.
    """
    head = written(row, turn, tokenizer, ask=True)
    upto = written(row, turn + 1, tokenizer) if turn < last else text
    if text.startswith(upto) and upto.startswith(head):
        # Generation stops at the end-of-turn token: a line break after it is not learned.
        stripped = upto.rstrip()
        ended = stripped.endswith(_special(tokenizer))
        return len(head), len(stripped if ended else upto)
    if CALLS in row.messages[turn] and text.startswith(head):
        return _call(row, turn, text, len(head), last, tokenizer)
    return None


def _call(
    row: Row, turn: int, text: str, start: int, last: int, tokenizer: Tokenizer
) -> tuple[int, int] | None:
    """The place of a tool call that begins at `start`, if its turn was written differently alone.

    Qwen3 opens the last turn with a thought. What follows the call is the same text as what follows
    a mark in its place.
    """
    messages = (*row.messages[:turn], {"role": "assistant", "content": MARK})
    marked = replace(row, messages=(*messages, *row.messages[turn + 1 :]))
    try:
        after = written(marked, last + 1, tokenizer).rpartition(MARK)[2]
    except UserError:
        return None
    if not after or not text.endswith(after):
        return None
    end = max((len(t) for t in _special(tokenizer) if after.startswith(t)), default=0)
    return start, len(text) - len(after) + end


def written(row: Row, count: int, tokenizer: Tokenizer, ask: bool = False) -> str:
    """The first `count` messages as text by the chat template; ask: with an answer's header."""
    try:
        return _written(row, count, tokenizer, ask)
    except REFUSALS as error:
        raise UserError(
            f"{row.place}: this tokenizer's chat template refuses these messages: {error}; "
            f"{_way_out(row, tokenizer)}, or take a model with another template."
        ) from None


def _written(row: Row, count: int, tokenizer: Tokenizer, ask: bool = False) -> str:
    return str(
        tokenizer.apply_chat_template(
            for_template(row, count, tokenizer),
            tools=[*row.tools] or None,
            chat_template=None if tokenizer.chat_template else PLAIN,
            tokenize=False,
            add_generation_prompt=ask,
        )
    )


def _way_out(row: Row, tokenizer: Tokenizer) -> str:
    """The change that a conversation needs which the template refuses."""
    merged = replace(row, messages=system_turns.apply(row.messages, "merge"))
    if system_turns.has_system(row.messages) and _is_written(merged, tokenizer):
        return (
            "let data.system: merge put the system turn before the first question, or data.system: "
            "drop leave it out"
        )
    roles = [message["role"] for message in merged.messages]
    same = next((at for at in range(1, len(roles)) if roles[at] == roles[at - 1]), None)
    if same is not None:
        contents = [message["content"] for message in merged.messages[same - 1 : same + 1]]
        return (
            f"two messages of the {roles[same]} follow one another ({contents[0]!r:.40} and "
            f"{contents[1]!r:.40}): join them, or drop the row"
        )
    return "change their roles or their order"


def _is_written(row: Row, tokenizer: Tokenizer) -> bool:
    """Tell if the template accepts a whole conversation."""
    try:
        _written(row, len(row.messages), tokenizer)
    except (*REFUSALS, UserError):
        return False
    return True
