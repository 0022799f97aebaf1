"""Conversations as a chat template writes them, and which parts of them are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from hanse.data.formats.row import Row
from hanse.data.formats.turns import answers
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead
from hanse.errors import UserError

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


def question(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> list[int]:
    """The tokens that ask for an answer to a conversation, as those do that are trained on."""
    row = Row(messages=tuple(messages), place="the conversation")
    text = written(row, len(messages), tokenizer, ask=True)
    return ([] if tokenizer.chat_template else lead(tokenizer)) + encode(tokenizer, [text])[0]


def asked(row: Row, tokenizer: Tokenizer) -> str:
    """What stands before a conversation's last answer, and asks for it."""
    return written(row, answers(row.messages)[-1], tokenizer, ask=True)


def last_answer(row: Row) -> str:
    """What the assistant said last in a conversation."""
    return row.messages[answers(row.messages)[-1]]["content"]


def conversation(row: Row, tokenizer: Tokenizer) -> Passage:
    """The conversation up to the assistant's last turn; its turns are learned, with their end.

    An assistant turn is what its rendering adds to the one before, behind the header that asks
    for it. A turn that the template writes otherwise once others follow (as Qwen3 does with its
    thoughts) is read and not learned, except the last.
    """
    turns = answers(row.messages)
    special = tuple(token for token in tokenizer.all_special_tokens if token)
    text = written(row, turns[-1] + 1, tokenizer)
    learned, texts = [], []
    for turn in turns:
        head = written(row, turn, tokenizer, ask=True)
        said = written(row, turn + 1, tokenizer) if turn < turns[-1] else text
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


def written(row: Row, count: int, tokenizer: Tokenizer, ask: bool = False) -> str:
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
            "change their roles or their order, or take a model with another template."
        ) from None
