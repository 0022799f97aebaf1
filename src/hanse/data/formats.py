"""One record of a data file, in whichever of the known formats it was written.

The format is found by looking at the columns: messages, prompt and completion, text and label,
or text. Every other plain column is kept beside it, to partition or to filter by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.errors import UserError

ROLES = ("system", "user", "assistant")
COLUMNS = {  # kind of row: its columns, in the order in which they are looked for
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "labelled": ("text", "label"),
    "text": ("text",),
}


@dataclass(frozen=True)
class Row:
    """One example as text; the parts that its format does not have are empty.

    fields: every other plain column as text, and the label if there is one.
    place: where it stands, "file:line", for error messages.
    vector: what a sentence encoder makes of it, for a partitioner that asks for one.
    """

    messages: tuple[Mapping[str, str], ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    label: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    vector: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """Which format it has: messages, completion, labelled or text."""
        if self.messages:
            return "messages"
        if self.completion:
            return "completion"
        return "text" if self.label is None else "labelled"


def row(record: Mapping[str, Any], place: str) -> Row:
    """The row that a record stands for; raises UserError with the `place` of what is wrong."""
    kind = next((kind for kind, names in COLUMNS.items() if set(names) <= set(record)), None)
    if kind is None:
        raise UserError(
            f"{place}: the columns {', '.join(map(repr, sorted(record))) or '(none)'} fit no "
            f"known format; known are {formats()}; rename the columns."
        )
    own = [name for name in COLUMNS[kind] if name != "label"]
    plain = {
        name: _clean(str(value), name, place)
        for name, value in record.items()
        if name not in own and isinstance(value, str | int | float)
    }
    if kind == "labelled":
        _check_label(record["label"], place)
    content: dict[str, Any] = {
        name: _text(record[name], name, place) for name in own if name != "messages"
    }
    if kind == "messages":
        content["messages"] = _messages(record["messages"], place)
    return Row(**content, label=plain.get("label"), fields=plain, place=place)


def formats() -> str:
    """The known formats as a phrase, for error messages."""
    return ", ".join(columns(kind) for kind in COLUMNS)


def columns(kind: str) -> str:
    """The columns of one kind of row as a phrase, for error messages."""
    return " + ".join(COLUMNS[kind])


def _clean(value: str, name: str, place: str) -> str:
    # JSON can spell half of a surrogate pair ("\\ud83d"), on which every tokenizer stumbles later.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{place}: {name} holds half of a surrogate pair, which is not text; write the whole "
            "character."
        ) from None
    return value


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {name} came as {_sort(value)}; write it as text in quotes.")
    # An empty prompt is allowed: then the completion is learned from nothing.
    if not value.strip() and name != "prompt":
        raise UserError(f"{place}: {name} is empty; write some text there or drop the row.")
    return _clean(value, name, place)


def _check_label(value: Any, place: str) -> None:
    if not isinstance(value, str | int) or value == "":
        came = "empty" if value in ("", None) else f"{value!r:.40}"
        raise UserError(
            f"{place}: label came as {came}; a label is a word, a whole number, true or false; "
            "mend it, or drop the row."
        )


def _messages(value: Any, place: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list):
        raise UserError(
            f"{place}: messages came as {_sort(value)}; write a list of {{role, content}}."
        )
    messages = tuple(_message(item, index, place) for index, item in enumerate(value, 1))
    # A turn that opens the conversation answers nothing, so there would be nothing to learn.
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise UserError(
            f"{place}: no assistant turn follows another one in these {len(messages)} messages, "
            "so there is nothing to learn; add the answer or drop the row."
        )
    return messages


def _message(item: Any, index: int, place: str) -> Mapping[str, str]:
    if not isinstance(item, dict) or not {"role", "content"} <= set(item):
        came = f"the keys {', '.join(map(repr, item))}" if isinstance(item, dict) else _sort(item)
        raise UserError(
            f"{place}: message {index} came as {came or 'nothing'}; it needs role and content."
        )
    if item["role"] not in ROLES:
        raise UserError(
            f"{place}: message {index} has the role {item['role']!r:.40}; "
            f"roles are {', '.join(ROLES)}."
        )
    if not isinstance(item["content"], str):
        raise UserError(
            f"{place}: the content of message {index} came as {_sort(item['content'])}; "
            "write it as text in quotes."
        )
    return {"role": item["role"], "content": _clean(item["content"], "content", place)}


def _sort(value: Any) -> str:
    """What came, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
