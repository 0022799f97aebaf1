"""The turns of a conversation, under OpenAI's names or ShareGPT's."""

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.data.formats import cells
from hanse.errors import UserError

# {"role": …, "content": …}, and the key UNLEARNED if the data mark an answer as not to be learned.
Turn = Mapping[str, str]
UNLEARNED = "unlearned"

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
MARKS = (  # what other tools call the mark by which a turn is learned or not
    *("weight", "train", "training"),  # OpenAI and Mistral; axolotl
    *("loss", "loss_scale", "loss_weight", "loss_mask"),  # ms-swift; LLaMA-Factory; verl, UI-TARS
)
VALUES = {"0": False, "false": False, "1": True, "true": True}
PARTIAL = "train_detail"  # axolotl's key for parts of a turn
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


def turn(role: str, content: str, learned: bool = True) -> Turn:
    """One turn."""
    return {"role": role, "content": content} | ({} if learned else {UNLEARNED: "true"})


def answers(messages: Sequence[Turn]) -> list[int]:
    """Where the assistant answers and is learned; a turn that opens the talk answers nothing."""
    return [
        at
        for at, message in enumerate(messages)
        if at and message["role"] == "assistant" and UNLEARNED not in message
    ]


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
    said = cells.text(content, name, place, empty=role == "system")
    return turn(role, said, role != "assistant" or _learned(item, index, place))


def _learned(item: Mapping[str, Any], index: int, place: str) -> bool:
    """Whether an assistant turn is learned; raises UserError for a mark that is neither 0 nor 1."""
    if item.get(PARTIAL) is not None:
        raise UserError(
            f"{place}: message {index} has {PARTIAL}, but a turn is learned as a whole or not at "
            "all; remove it, or mark the turn with train: true or false."
        )
    found = True
    for name in MARKS:
        if not cells.missing(item.get(name)):
            value = cells.plain(item[name])
            mark = VALUES.get((value or "").strip().lower())
            if mark is None:
                raise UserError(
                    f"{place}: message {index} has {name} {item[name]!r:.40}, but a turn is "
                    "learned as a whole or not at all; write 1 or 0, or true or false."
                )
            found = found and mark
    return found


def _is_text(part: Any) -> bool:
    """Whether this is a part of a content as OpenAI writes it: {"type": "text", "text": …}."""
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )
