"""The turns of a conversation, in OpenAI's form or in ShareGPT's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hanse.data.formats import cells, tool_calls
from hanse.errors import UserError

# {"role": …, "content": …}, and perhaps the keys of TOOL_KEYS, and UNLEARNED if the data mark an
# answer as not to be learned.
Turn = Mapping[str, Any]
UNLEARNED = "unlearned"
CALLS = "tool_calls"
TOOL = "tool"  # the role of a turn that holds the result of a call
TOOL_KEYS = (CALLS, "tool_call_id", "name")

ROLES = {  # the name of a role in a file: its name in a chat template
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    TOOL: TOOL,
    **dict.fromkeys(("observation", "ipython", "environment"), TOOL),
    **dict.fromkeys(("function", "tool_response", "tool_result", "function_response"), TOOL),
}
CALLING = ("function_call", "tool_call", "tool_calls", "function-call")  # the text is a call's JSON
MARKS = (  # names in other tools of the mark that tells if a turn is learned
    *("weight", "train", "training"),  # OpenAI and Mistral; axolotl
    *("loss", "loss_scale", "loss_weight", "loss_mask"),  # ms-swift; LLaMA-Factory; verl, UI-TARS
)
VALUES = {"0": False, "false": False, "1": True, "true": True}
PARTIAL = "train_detail"  # axolotl's key for parts of a turn
KEYS = (("role", "content"), ("from", "value"))  # role and text: OpenAI's keys, and ShareGPT's
READ = frozenset((*MARKS, PARTIAL, *KEYS[0], *KEYS[1], *TOOL_KEYS, "function_call"))


def turns(value: Any, name: str, place: str) -> tuple[Turn, ...]:
    """The turns in a column; raises UserError with its place for an item that is no turn."""
    if not isinstance(value, list):
        raise UserError(
            f"{place}: {name} is {cells.json_type(value)}; write a list of {{role, content}}."
        )
    return tuple(_turn(item, index, place) for index, item in enumerate(value, 1))


def conversation(messages: Sequence[Turn], place: str) -> tuple[Turn, ...]:
    """The messages as a tuple; raises UserError if they hold no answer to learn."""
    # An assistant turn that opens the conversation is not an answer.
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise UserError(
            f"{place}: no assistant turn follows another turn in these {len(messages)} messages, "
            "and nothing can be learned from them; add the answer, or drop the row."
        )
    return tuple(messages)


def turn(role: str, content: str) -> Turn:
    """A turn as a row holds it."""
    return {"role": role, "content": content}


def unlearned(messages: Sequence[Turn]) -> tuple[Turn, ...]:
    """The same turns, without an answer to learn."""
    return tuple({**t, UNLEARNED: "true"} if t["role"] == "assistant" else t for t in messages)


def last_answer_only(messages: Sequence[Turn]) -> tuple[Turn, ...]:
    """The same turns; only the last answer is learned."""
    learned = answers(messages)
    last = learned[-1] if learned else 0
    return (*unlearned(messages[:last]), *messages[last:])


def masked(messages: Sequence[Turn], mask: Any, name: str, place: str) -> tuple[Turn, ...]:
    """The same turns; answers with a 0 in the mask are not learned.

    mask: one number for each message, 0 or 1; None: all are learned. name: of its column.
    """
    if cells.missing(mask):
        return tuple(messages)
    marks = [VALUES.get(cells.plain(mark) or "") for mark in mask] if isinstance(mask, list) else []
    if len(marks) != len(messages) or None in marks:
        raise UserError(
            f"{place}: {name} is no list of 0 and 1 for the {len(messages)} messages; write one "
            "number for each message, or leave the column out."
        )
    return tuple(
        message if mark or message["role"] != "assistant" else unlearned([message])[0]
        for message, mark in zip(messages, marks, strict=True)
    )


def answers(messages: Sequence[Turn]) -> list[int]:
    """The places of the assistant's turns that are learned; an opening turn is not an answer."""
    return [
        at
        for at, message in enumerate(messages)
        if at and message["role"] == "assistant" and UNLEARNED not in message
    ]


def are_turns(value: Any) -> bool:
    """Tell if a value looks like a conversation, even a faulty one."""
    return isinstance(value, list) and any(
        isinstance(item, dict) and any(role in item for role, _ in KEYS) for item in value
    )


def is_chat(answer: Any) -> bool:
    """Tell if an answer is a list of turns, or one turn, as LLaMA-Factory has it."""
    return isinstance(answer, list) or are_turns([answer])


def ends_in_question(value: Any) -> bool:
    """Tell if a conversation ends in a turn of somebody else than the assistant."""
    if not are_turns(value) or not isinstance(value[-1], dict):
        return False
    role = next((value[-1][key] for key, _ in KEYS if key in value[-1]), None)
    name = role.strip().lower() if isinstance(role, str) else ""
    return name not in CALLING and ROLES.get(name) not in (None, "assistant")


def _turn(item: Any, index: int, place: str) -> Turn:
    """The turn that an item of a conversation stands for; raises UserError if it is no turn."""
    role_key, text_key = _keys(item, index, place)
    role, content = item[role_key], item.get(text_key)
    calls = tool_calls.calls(item, index, place)
    if isinstance(role, str) and role.strip().lower() in CALLING:
        content, calls = tool_calls.thought_and_calls(content, f"message {index}", place)
        role = "assistant"
    role = _role(role, index, place)
    if calls and role != "assistant":
        raise UserError(
            f"{place}: message {index} has tool calls, but the role {role}; only the assistant "
            "calls tools."
        )
    result: dict[str, Any] = {
        "role": role,
        "content": _content(content, role, bool(calls), index, place),
    }
    if role == "assistant" and calls:
        result[CALLS] = calls
    elif role == TOOL:
        keys = (key for key in TOOL_KEYS if isinstance(item.get(key), str))
        result |= {key: item[key] for key in keys}
    if role == "assistant" and not _learned(item, index, place):
        result[UNLEARNED] = "true"
    return result


def _keys(item: Any, index: int, place: str) -> tuple[str, str]:
    """The keys of a turn's role and of its text; a turn with a call may lack the text."""
    for role, text in KEYS:
        is_turn = isinstance(item, dict) and role in item
        if is_turn and (text in item or item.get(CALLS) or item.get("function_call")):
            return role, text
    is_object = isinstance(item, dict)
    description = f"the keys {cells.listed(item)}" if is_object else cells.json_type(item)
    raise UserError(
        f"{place}: message {index} {'has' if is_object else 'is'} {description}; it needs role "
        "and content."
    )


def _content(value: Any, role: str, calls: bool, index: int, place: str) -> str:
    """The text of a turn; raises UserError for anything else."""
    name = f"the content of message {index}"
    if isinstance(value, list) and all(map(_is_text, value)) and (value or role != TOOL):
        value = "".join(part["text"] for part in value)
    if role == TOOL and isinstance(value, dict | list):  # a result that is not written as text yet
        value = json.dumps(value, ensure_ascii=False)
    # An empty system turn has a meaning: without one, some templates write one of their own.
    empty = role == TOOL or calls or (role == "system" and isinstance(value, str))
    return cells.text(value, name, place, empty=empty)


def _role(value: Any, index: int, place: str) -> str:
    """The role of a turn by its name in a chat template; raises UserError for an unknown one."""
    role = ROLES.get(value.strip().lower()) if isinstance(value, str) else None
    if role is None:
        description = f"{value!r:.40}" if isinstance(value, str) else cells.json_type(value)
        raise UserError(
            f"{place}: message {index} has the role {description}; "
            f"roles are {', '.join(dict.fromkeys(ROLES.values()))}."
        )
    return role


def _learned(item: Mapping[str, Any], index: int, place: str) -> bool:
    """Tell if an assistant turn is learned; raises UserError for a mark other than 0 or 1."""
    if item.get(PARTIAL) is not None:
        raise UserError(
            f"{place}: message {index} has {PARTIAL}, but a turn is learned as a whole or not at "
            "all; remove it, or mark the turn with train: true or false."
        )
    learned = True
    for name in MARKS:
        if not cells.missing(item.get(name)):
            value = cells.plain(item[name])
            mark = VALUES.get((value or "").strip().lower())
            if mark is None:
                raise UserError(
                    f"{place}: message {index} has {name} {item[name]!r:.40}, but a turn is "
                    "learned as a whole or not at all; write 1 or 0, or true or false."
                )
            learned = learned and mark
    return learned


def _is_text(part: Any) -> bool:
    """Tell if this is a text part of OpenAI's form: {"type": "text", "text": …}."""
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )
