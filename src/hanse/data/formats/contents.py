"""What a row says, from the parts that its format found: one function for each format."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hanse.data.formats import cells
from hanse.data.formats.turns import Turn, are_turns, conversation, turn, turns
from hanse.errors import UserError

Parts = Mapping[str, Any]  # the name of a part, as in columns.FORMATS: its value in one record
Content = dict[str, Any]  # fields of a Row


def literal(parts: Parts) -> bool:
    """Whether an answer follows a text named prompt just as it stands, and not as a turn."""
    answers = [parts[name] for name in ("completion", "chosen", "rejected") if name in parts]
    chat = any(isinstance(value, list) for value in (parts.get("prompt"), *answers))
    asked = "instruction" in parts and "prompt" not in parts
    return not chat and not asked and cells.missing(parts.get("system") or None)


def _messages(parts: Parts, place: str) -> Content:
    """A conversation in one column, and perhaps its system turn in another."""
    [(name, value)] = ((name, value) for name, value in parts.items() if name != "system")
    said = turns(value, name, place)
    return {"messages": conversation((*_system(parts, said, place), *said), place)}


def _alpaca(parts: Parts, place: str) -> Content:
    """The instruction, with its input in the next line, as the user's turn; then the output."""
    asked = [
        cells.text(parts.get(name), name, place, empty=True) for name in ("instruction", "input")
    ]
    question = cells.text("\n".join(filter(str.strip, asked)), "instruction", place)
    answer = cells.text(parts["output"], "output", place)
    before = (*_system(parts, (), place), *_history(parts.get("history"), place))
    return {"messages": (*before, turn("user", question), turn("assistant", answer))}


def _completion(parts: Parts, place: str) -> Content:
    if not {"prompt", "instruction"} & set(parts) and not are_turns(parts["completion"]):
        raise UserError(
            f"{place}: completion has no prompt; name its column with data.columns: {{prompt: …}}, "
            "or learn the text whole with data.columns: {text: …}."
        )
    if not literal(parts):
        said = _conversation(parts, "completion", place)
        return {"messages": conversation(said, place)}
    # An empty prompt is allowed: then the completion is learned from nothing.
    return {
        "prompt": cells.text(parts["prompt"], "prompt", place, empty=True),
        "completion": cells.text(parts["completion"], "completion", place),
    }


def _preference(parts: Parts, place: str) -> Content:
    """Two answers to one prompt, or to one conversation so far."""
    if literal(parts):
        answers = {name: cells.text(parts[name], name, place) for name in ("chosen", "rejected")}
        return {"prompt": cells.text(parts.get("prompt"), "prompt", place, empty=True), **answers}
    chosen, rejected = (_conversation(parts, name, place) for name in ("chosen", "rejected"))
    for name, said in (("chosen", chosen), ("rejected", rejected)):
        if not said or said[-1]["role"] != "assistant":
            raise UserError(f"{place}: {name} does not end in an assistant turn; add the answer.")
    if chosen[:-1] != rejected[:-1]:
        raise UserError(
            f"{place}: chosen and rejected differ before their last turn; let them answer the "
            "same messages, or drop the row."
        )
    last = {"chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}
    return {"messages": chosen[:-1], **last}


def _labelled(parts: Parts, place: str) -> Content:
    return {**_text(parts, place), "label": cells.label(parts["label"], place)}


def _tagged(parts: Parts, place: str) -> Content:
    """Words with a tag for each; the text is the words with a space between them."""
    words = _listed(parts["words"], "words", place)
    tags = _listed(parts["tags"], "tags", place)
    if len(words) != len(tags):
        raise UserError(
            f"{place}: there are {len(words)} words and {len(tags)} tags; each word has one tag, "
            "so mend the row or drop it."
        )
    said = tuple(cells.text(word, f"word {number}", place) for number, word in enumerate(words, 1))
    known = tuple(cells.label(tag, place, f"tag {number}") for number, tag in enumerate(tags, 1))
    return {"words": said, "tags": known, "text": cells.text(" ".join(said), "words", place)}


def _listed(value: Any, name: str, place: str) -> Sequence[Any]:
    """A list as it is; in a table, what white space parts in a cell."""
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: {name} came as {cells.sort(value)}; write a list.")
    return value


def _text(parts: Parts, place: str) -> Content:
    return {"text": cells.text(parts["text"], "text", place)}


def _conversation(parts: Parts, name: str, place: str) -> tuple[Turn, ...]:
    """What was asked and the answer in the column `name`, which may hold the whole talk."""
    value = parts[name]
    if not isinstance(value, list):
        said: tuple[Turn, ...] = (turn("assistant", cells.text(value, name, place)),)
    else:
        said = turns(value, name, place)
        if said and said[0]["role"] != "assistant":  # the prompt is in it
            return (*_system(parts, said, place), *said)
    asked = parts.get("prompt", parts.get("instruction"))
    if isinstance(asked, list):
        before = turns(asked, "prompt", place)
    else:
        question = cells.text(asked, "prompt", place, empty=True)
        before = (turn("user", question),) if question.strip() else ()
    return (*_system(parts, before, place), *before, *said)


def _system(parts: Parts, said: Sequence[Turn], place: str) -> tuple[Turn, ...]:
    """The system turn of a column of its own, if the conversation does not begin with one."""
    words = cells.text(parts.get("system"), "system", place, empty=True)
    opened = said and said[0]["role"] == "system"
    return (turn("system", words),) if words.strip() and not opened else ()


def _history(value: Any, place: str) -> tuple[Turn, ...]:
    """Earlier questions and answers, as LLaMA-Factory writes them: [[question, answer], …]."""
    if cells.missing(value):
        return ()
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in value
    ):
        raise UserError(
            f"{place}: history is no list of [question, answer] pairs; mend it, or drop the column."
        )
    return tuple(
        turn(role, cells.text(words, f"history {number}", place))
        for number, pair in enumerate(value, 1)
        for role, words in zip(("user", "assistant"), pair, strict=True)
    )


CONTENTS: dict[str, Callable[[Parts, str], Content]] = {
    "messages": _messages,
    "sharegpt": _messages,
    "preference": _preference,
    "completion": _completion,
    "alpaca": _alpaca,
    "labelled": _labelled,
    "tagged": _tagged,
    "text": _text,
}
