"""Tools that an assistant may call, and its calls, in the form that chat templates take.

Tools: {"type": "function", "function": {"name", "description", "parameters"}}. Calls: {"type":
"function", "function": {"name", "arguments"}}, perhaps with an "id". Both are OpenAI's forms, but
the arguments are an object, where OpenAI has the object's JSON text.
"""

import re
from collections.abc import Mapping
from typing import Any

from hanse.data.formats import cells
from hanse.errors import UserError
from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

Calls = tuple[Mapping[str, Any], ...]
TOOL_FORM = '{"name": …, "description": …, "parameters": …}'
CALL_FORM = '{"name": …, "arguments": {…}}'
THOUGHT = re.compile(r"\s*(<think>.*?</think>)(.*)", re.DOTALL)  # LLaMA-Factory: before the call


def are_tools(value: Any) -> bool:
    """Tell if a value looks like a list of tools or calls, even a faulty one.

    In a column of recipes, tools are "a pan, a knife", or a list of such words.
    """
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        items = value.strip()[1:].lstrip()
        return items[:1] == "{" or items in ("", "]")
    return _is_object(value)


def _is_object(value: Any) -> bool:
    """Tell if a value is an object, or looks like the JSON text of one."""
    return isinstance(value, dict) or (isinstance(value, str) and value.lstrip()[:1] == "{")


def tools(value: Any, place: str) -> Calls:
    """The tools in a column: a list, or its JSON text; raises UserError for anything else."""
    if cells.missing(value) or (isinstance(value, str) and not value.strip()):
        return ()
    return tuple(
        _wrapped(item, f"tool {number}", TOOL_FORM, place)
        for number, item in enumerate(_items(value, "tools", TOOL_FORM, place), 1)
    )


def calls(item: Mapping[str, Any], index: int, place: str) -> Calls:
    """The calls of a message: `tool_calls`, or OpenAI's older `function_call`; () without any."""
    value = item.get("tool_calls") or item.get("function_call")
    return written_calls(value, f"message {index}", place) if value else ()


def written_calls(value: Any, name: str, place: str) -> Calls:
    """Calls from a list, one call alone, or the JSON text of either."""
    items = _items(value, f"the tool calls of {name}", CALL_FORM, place)
    return tuple(
        _call(item, f"tool call {number} of {name}", place) for number, item in enumerate(items, 1)
    )


def in_answer(answer: Any, place: str) -> Calls:
    """The calls in an answer beside tools that is a list or its JSON text, as in xLAM's data.

    () for other answers.
    """
    try:
        return written_calls(answer, "the answer", place) if are_tools(answer) else ()
    except UserError:
        return ()


def thought_and_calls(value: Any, name: str, place: str) -> tuple[str, Calls]:
    """The calls in a turn of ShareGPT's form, and the thought that LLaMA-Factory has before them.

    The turn's text is the JSON of one call or of a list of calls.
    """
    match = THOUGHT.fullmatch(value) if isinstance(value, str) else None
    thought, value = match.groups() if match else ("", value)
    return thought, written_calls(value, name, place)


def _items(value: Any, name: str, form: str, place: str) -> list[Any]:
    """The items of a list, of one object alone, or of the JSON text of either."""
    value = _parsed(value, name, f"a list of {form}", place)
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: {name} is {cells.json_type(value)}; write a list of {form}.")
    return list(value)


def _parsed(value: Any, name: str, form: str, place: str) -> Any:
    """The value of a JSON text; any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json_text.parse(value)
    except JsonError as error:
        raise UserError(
            f"{place}: {name} cannot be read as JSON ({error}); write {form}."
        ) from None


def _call(item: Any, name: str, place: str) -> Mapping[str, Any]:
    """One call, with its arguments as an object."""
    call = _wrapped(item, name, CALL_FORM, place)
    function = dict(call["function"])
    value = function.get("arguments", function.pop("parameters", None)) or {}
    example = 'an object, such as {"city": "Oslo"}'
    value = _parsed(value, f"the arguments of {name}", example, place)
    if not isinstance(value, dict):
        raise UserError(
            f"{place}: the arguments of {name} are {cells.json_type(value)}; write an object, such "
            'as {"city": "Oslo"}.'
        )
    return {**call, "function": {**function, "arguments": value}}


def _wrapped(item: Any, name: str, form: str, place: str) -> dict[str, Any]:
    """A tool or a call in OpenAI's form; LLaMA-Factory has its inner object alone."""
    if isinstance(item, str):
        [item] = _items(item, name, form, place)
    inner = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        keys = isinstance(item, dict)
        description = (
            f"has the keys {cells.listed(item)}" if keys else f"is {cells.json_type(item)}"
        )
        raise UserError(f"{place}: {name} {description}; write {form}.")
    if inner is item:
        return {"type": "function", "function": dict(item)}
    return {key: value for key, value in item.items() if value is not None}
