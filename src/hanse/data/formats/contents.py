"""The content of a row, from the parts of its format: one function for each format."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hanse.data.formats import cells, tool_calls, written_lists
from hanse.data.formats.turns import (
    CALLS,
    READ,
    Turn,
    are_turns,
    conversation,
    is_chat,
    masked,
    turn,
    turns,
)
from hanse.errors import UserError

Content = dict[str, Any]  # fields of a Row
LISTS = ("messages", "conversations", "history", "words", "tags")  # parts that are lists
TURNS = ("prompt", "completion", "chosen", "rejected")  # parts that may be lists of turns


class Parts(dict[str, Any]):
    """The value of each part of a record, by the part's name as in columns.FORMATS.

    columns: part → the file's column, which messages name.
    """

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        super().__init__({part: _value(part, record[name]) for part, name in columns.items()})
        self.columns = columns

    def name(self, part: str) -> str:
        """The name of a part in the user's file."""
        return self.columns.get(part, part)

    def text(self, part: str, place: str, empty: bool = False) -> str:
        """A part that must be text; raises UserError with its place for anything else.

        empty: blank text, or no value at all, is allowed.
        """
        return cells.text(self.get(part), self.name(part), place, empty)


def _value(part: str, value: Any) -> Any:
    """The value of a part; a list that was written into a table's cell is a list again."""
    if part not in (*LISTS, *TURNS):
        return value
    items = written_lists.read(value)
    return items if part in LISTS or are_turns(items) else value


def unread_keys(parts: Parts) -> tuple[str, ...]:
    """The keys with a value within parts that are not read.

    Those of turns are written messages[].key, those of SQuAD's answers answers.key; the answers
    after the first one are answers.text[1:].
    """
    keys: dict[str, None] = {}
    for part, value in parts.items():
        name = parts.name(part)
        if are_turns(value):
            turns = (item for item in value if isinstance(item, dict))
            filled = (key for item in turns for key in item if not cells.empty(item[key]))
            keys |= {f"{name}[].{key}": None for key in filled if key not in READ}
        elif part == "output" and (texts := _texts(value)):
            filled = (key for key in value if key != "text" and not cells.empty(value[key]))
            keys |= {f"{name}.{key}": None for key in filled}
            keys |= {f"{name}.text[1:]": None} if any(t != texts[0] for t in texts) else {}
    return tuple(keys)


def literal(parts: Parts) -> bool:
    """Tell if a prompt and its answer are plain texts, not turns of a conversation.

    Beside a column of tools they are turns, in rows without tools, too.
    """
    answers = [parts[name] for name in ("completion", "chosen", "rejected") if name in parts]
    chat = isinstance(parts.get("prompt"), list) or any(map(is_chat, answers)) or _talk_part(parts)
    instruction = "instruction" in parts and "prompt" not in parts
    alone = "tools" not in parts and cells.missing(parts.get("system") or None)
    return not chat and not instruction and alone


def _talk_part(parts: Parts) -> str:
    """The part that holds a conversation; "" without one."""
    return next((part for part in ("messages", "conversations") if part in parts), "")


def _messages(parts: Parts, place: str) -> Content:
    """A conversation in one column, and perhaps its system turn in another."""
    part = _talk_part(parts)
    messages = turns(parts[part], parts.name(part), place)
    messages = masked(messages, parts.get("loss_mask"), parts.name("loss_mask"), place)
    return _talk(parts, (*_system(parts, messages, place), *messages), place)


def _talk(parts: Parts, messages: Sequence[Turn], place: str) -> Content:
    """A conversation, and the tools that its assistant may call."""
    return {"messages": conversation(messages, place), **_tools(parts, place)}


def _tools(parts: Parts, place: str) -> Content:
    tools = tool_calls.tools(parts.get("tools"), place)
    return {"tools": tools} if tools else {}


def _alpaca(parts: Parts, place: str) -> Content:
    """The instruction, with its input in the next line, as the user's turn; then the output."""
    texts = [parts.text(part, place, empty=True) for part in ("instruction", "input")]
    question = "\n".join(filter(str.strip, texts))
    question = cells.text(question, parts.name("instruction"), place)
    answer = next(iter(_texts(parts["output"])), parts["output"])
    calls = tool_calls.in_answer(answer, place) if parts.get("tools") else ()
    text = "" if calls else cells.text(answer, parts.name("output"), place)
    reply = {**turn("assistant", text), **({CALLS: calls} if calls else {})}
    before = (*_system(parts, (), place), *_history(parts, place))
    return _talk(parts, (*before, turn("user", question), reply), place)


def _texts(answers: Any) -> list[Any]:
    """The answers of SQuAD's form, {text: […], …}; empty for any other value."""
    texts = answers.get("text") if isinstance(answers, dict) else None
    return texts if isinstance(texts, list) else []


def _completion(parts: Parts, place: str) -> Content:
    """A prompt and its completion as texts, or a conversation if one of them is one."""
    asked = _talk_part(parts) or {"prompt", "instruction"} & set(parts)
    if not asked and not are_turns(parts["completion"]):
        raise UserError(
            f"{place}: {parts.name('completion')} has no prompt; name its column with "
            "data.columns: {prompt: …}, or learn the whole text with data.columns: {text: …}."
        )
    if not literal(parts):
        return _talk(parts, _conversation(parts, "completion", place), place)
    # An empty prompt is allowed: then the completion is learned without one.
    return {
        "prompt": parts.text("prompt", place, empty=True),
        "completion": parts.text("completion", place),
    }


def _preference(parts: Parts, place: str) -> Content:
    """Two answers to one prompt, or to one conversation so far."""
    if literal(parts):
        answers = [parts.text(part, place) for part in ("chosen", "rejected")]
        prompt = parts.text("prompt", place, empty=True)
        _refuse_equal(parts, answers[0], answers[1], place)
        if "prompt" not in parts:
            prompt = common_beginning(*answers)
            answers = [answer.removeprefix(prompt) for answer in answers]
        return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    chosen, rejected = (_conversation(parts, part, place) for part in ("chosen", "rejected"))
    for part, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1]["role"] != "assistant":
            raise UserError(
                f"{place}: {parts.name(part)} does not end in an assistant turn; add the answer."
            )
    if chosen[:-1] != rejected[:-1]:
        raise UserError(
            f"{place}: {parts.name('chosen')} and {parts.name('rejected')} differ before their "
            "last turn; let them answer the same messages, or drop the row."
        )
    if chosen[-1].get(CALLS) == rejected[-1].get(CALLS):
        _refuse_equal(parts, chosen[-1]["content"], rejected[-1]["content"], place)
    return {
        "messages": chosen[:-1],
        "chosen": chosen[-1]["content"],
        "rejected": rejected[-1]["content"],
        "chosen_calls": chosen[-1].get(CALLS, ()),
        "rejected_calls": rejected[-1].get(CALLS, ()),
        **_tools(parts, place),
    }


def common_beginning(chosen: str, rejected: str) -> str:
    """The prompt of two unlike texts that both begin with it, in whole words.

    It ends before white space, and something follows it in both texts. TRL reads such data
    likewise, but cuts words.
    """
    pairs = zip(chosen, rejected, strict=False)
    size = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    size = min(size, len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)
    while size and not (chosen[size].isspace() and rejected[size].isspace()):
        size -= 1
    return chosen[:size]


def _refuse_equal(parts: Parts, chosen: str, rejected: str, place: str) -> None:
    """Raise UserError for a preference whose two answers are the same."""
    if chosen.strip() == rejected.strip():
        raise UserError(
            f"{place}: {parts.name('chosen')} and {parts.name('rejected')} are the same answer, "
            "and nothing can be learned from them; correct one of them, or drop the row."
        )


def _pair(parts: Parts, place: str) -> Content:
    """Two texts, and a label for both."""
    return {**_labelled(parts, place), "text_pair": parts.text("text_pair", place)}


def _labelled(parts: Parts, place: str) -> Content:
    return {**_text(parts, place), "label": cells.label(parts["label"], place, parts.name("label"))}


def _tagged(parts: Parts, place: str) -> Content:
    """Words and a tag for each; the text is the words with a space between them."""
    words, tags = (_listed(parts[part], parts.name(part), place) for part in ("words", "tags"))
    if len(words) != len(tags):
        raise UserError(
            f"{place}: there are {len(words)} words and {len(tags)} tags, but each word has one "
            "tag; correct the row, or drop it."
        )
    texts = tuple(cells.text(word, f"word {number}", place) for number, word in enumerate(words, 1))
    names = tuple(
        cells.label(tag, place, f"tag {number}", "tag") for number, tag in enumerate(tags, 1)
    )
    text = cells.text(" ".join(texts), parts.name("words"), place)
    return {"words": texts, "tags": names, "text": text}


def _listed(value: Any, name: str, place: str) -> Sequence[Any]:
    """A list as it is; a table's cell is split at white space."""
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: {name} is {cells.json_type(value)}; write a list.")
    return value


def _text(parts: Parts, place: str) -> Content:
    return {"text": parts.text("text", place)}


def _conversation(parts: Parts, part: str, place: str) -> tuple[Turn, ...]:
    """The prompt and the answer in one part, which may hold the whole conversation."""
    value = [parts[part]] if isinstance(parts[part], dict) else parts[part]
    if not isinstance(value, list):
        answer: tuple[Turn, ...] = (turn("assistant", parts.text(part, place)),)
    else:
        answer = turns(value, parts.name(part), place)
        if answer and answer[0]["role"] != "assistant":  # it begins with the prompt
            return (*_system(parts, answer, place), *answer)
    asked = _talk_part(parts) or ("prompt" if "prompt" in parts else "instruction")
    if isinstance(parts.get(asked), list):
        before = turns(parts[asked], parts.name(asked), place)
    else:
        question = parts.text(asked, place, empty=True)
        before = (turn("user", question),) if question.strip() else ()
    return (*_system(parts, before, place), *before, *answer)


def _system(parts: Parts, messages: Sequence[Turn], place: str) -> tuple[Turn, ...]:
    """The system turn of the column `system`, unless the messages begin with a system turn."""
    text = parts.text("system", place, empty=True)
    opened = messages and messages[0]["role"] == "system"
    return (turn("system", text),) if text.strip() and not opened else ()


def _history(parts: Parts, place: str) -> tuple[Turn, ...]:
    """Earlier questions and answers in LLaMA-Factory's form: [[question, answer], …]."""
    value, name = parts.get("history"), parts.name("history")
    if cells.missing(value):
        return ()
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in value
    ):
        raise UserError(
            f"{place}: {name} is no list of [question, answer] pairs; correct it, or drop the "
            "column."
        )
    return tuple(
        turn(role, cells.text(text, f"{name} {number}", place))
        for number, pair in enumerate(value, 1)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )


CONTENTS: dict[str, Callable[[Parts, str], Content]] = {
    "messages": _messages,
    "sharegpt": _messages,
    "preference": _preference,
    "completion": _completion,
    "alpaca": _alpaca,
    "document": _alpaca,
    "labelled": _labelled,
    "pair": _pair,
    "tagged": _tagged,
    "text": _text,
}
