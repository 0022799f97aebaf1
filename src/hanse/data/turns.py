"""The turns of a conversation, under OpenAI's names or ShareGPT's."""

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.data import cells
from hanse.errors import UserError

Turn = Mapping[str, str]  # {"role": …, "content": …}

ROLES = {  # what a file may call a role: what a chat template calls it
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
KEYS = (("role", "content"), ("from", "value"))  # who says what: OpenAI's keys, and ShareGPT's


def turns(value: Any, name: str, place: str) -> tuple[Turn, ...]:
    """The turns in a column; raises UserError with their place for whatever is no turn."""
    if not isinstance(value, list):
        raise UserError(
            f"{place}: {name} came as {cells.sort(value)}; write a list of {{role, content}}."
        )
    return tuple(_turn(item, index, place) for index, item in enumerate(value, 1))


def conversation(messages: Sequence[Turn], place: str) -> tuple[Turn, ...]:
    """The messages, if they teach something; raises UserError if nothing in them is learned."""
    # A turn that opens the conversation answers nothing, so there would be nothing to learn.
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise UserError(
            f"{place}: no assistant turn follows another one in these {len(messages)} messages, "
            "so there is nothing to learn; add the answer or drop the row."
        )
    return tuple(messages)


def turn(role: str, content: str) -> Turn:
    """One turn."""
    return {"role": role, "content": content}


def are_turns(value: Any) -> bool:
    """Whether a value looks like a conversation, whatever is wrong in it."""
    return isinstance(value, list) and any(
        isinstance(item, dict) and any(who in item for who, _ in KEYS) for item in value
    )


def _turn(item: Any, index: int, place: str) -> Turn:
    keys = [keys for keys in KEYS if isinstance(item, dict) and set(keys) <= set(item)]
    if not keys:
        came = f"the keys {cells.listed(item)}" if isinstance(item, dict) else None
        raise UserError(
            f"{place}: message {index} came as {came or cells.sort(item)}; it needs role and "
            "content."
        )
    who, what = keys[0]
    role = ROLES.get(item[who].strip().lower()) if isinstance(item[who], str) else None
    if role is None:
        came = f"{item[who]!r:.40}" if isinstance(item[who], str) else cells.sort(item[who])
        raise UserError(
            f"{place}: message {index} has the role {came}; "
            f"roles are {', '.join(dict.fromkeys(ROLES.values()))}."
        )
    name, content = f"the content of message {index}", item[what]
    if isinstance(content, list) and all(map(_is_text, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UserError(
            f"{place}: {name} came as {cells.sort(content)}; write it as text in quotes."
        )
    # An empty system turn says something: some templates put one of their own where there is none.
    return turn(role, cells.text(content, name, place, empty=role == "system"))


def _is_text(part: Any) -> bool:
    """Whether this is a part of a content as OpenAI writes it: {"type": "text", "text": …}."""
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )
