"""Conversations as text by a chat template, with the parts of it that are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from hanse.data.formats.row import Row
from hanse.data.formats.turns import answers
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead
from hanse.errors import UserError

TURN_KEYS = ("role", "content")  # the keys of a turn that a chat template gets
# For a tokenizer without a chat template: a line "role: content" for each turn; an assistant's turn
# ends with the end-of-text token, if there is one.
PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' and eos_token is defined %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


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


def question(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> list[int]:
    """The tokens of a conversation with the header of an answer, in the form used in training."""
    row = Row(messages=tuple(messages), place="the conversation")
    text = written(row, len(messages), tokenizer, ask=True)
    return ([] if tokenizer.chat_template else lead(tokenizer)) + encode(tokenizer, [text])[0]


def asked(row: Row, tokenizer: Tokenizer) -> str:
    """The text of a conversation up to its last answer, with the answer's header."""
    return written(row, answers(row.messages)[-1], tokenizer, ask=True)


def last_answer(row: Row) -> str:
    """The last answer of a conversation."""
    return row.messages[answers(row.messages)[-1]]["content"]


def conversation(row: Row, tokenizer: Tokenizer) -> Passage:
    """A conversation up to its last answer; its answers are learned, with their end-of-turn tokens.

    An answer is the text that its turn adds to the turns before and the answer's header. Some
    templates write a turn differently once others follow (Qwen3 leaves out its thoughts); such a
    turn is read and not learned, unless it is the last.
    """
    turns = answers(row.messages)
    special = tuple(token for token in tokenizer.all_special_tokens if token)
    text = written(row, turns[-1] + 1, tokenizer)
    learned, texts = [], []
    for turn in turns:
        head = written(row, turn, tokenizer, ask=True)
        upto = written(row, turn + 1, tokenizer) if turn < turns[-1] else text
        if text.startswith(upto) and upto.startswith(head):
            # Generation stops at the end-of-turn token: a line break after it is not learned.
            stripped = upto.rstrip()
            learned.append((len(head), len(stripped if stripped.endswith(special) else upto)))
            texts.append(row.messages[turn]["content"])
        elif turn == turns[-1]:
            raise UserError(
                f"{row.place}: this tokenizer's chat template does not begin an answer with the "
                "header that asks for one, so the answer cannot be found in the text; use prompt "
                "and completion."
            )
    templated = bool(tokenizer.chat_template)
    return Passage(text, tuple(learned), tuple(texts), open=not templated, closed=False)


def written(row: Row, count: int, tokenizer: Tokenizer, ask: bool = False) -> str:
    """The first `count` messages as text by the chat template; ask: with an answer's header."""
    try:
        return str(
            tokenizer.apply_chat_template(
                [{key: message[key] for key in TURN_KEYS} for message in row.messages[:count]],
                chat_template=None if tokenizer.chat_template else PLAIN,
                tokenize=False,
                add_generation_prompt=ask,
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(
            f"{row.place}: this tokenizer's chat template refuses these messages: {error}; "
            "change their roles or their order, or take a model with another template."
        ) from None
