"""Tests which parts of tool use a model's chat template writes, and gives it these in its form.

A template that ignores tools raises no error. It is found by a short conversation that is rendered
twice, with one part of it changed: if both texts are the same, the template does not write it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from hanse.data.formats.row import Row
from hanse.data.formats.turns import CALLS, TOOL, TOOL_KEYS, Turn
from hanse.data.tokenization.tokenizer import Tokenizer
from hanse.errors import UserError

REFUSALS = (TemplateError, TypeError, ValueError)  # errors by which a template refuses messages
KEYS = ("role", "content", *TOOL_KEYS)  # the keys of a turn that a chat template gets
Talk = tuple[list[Turn], list[dict[str, Any]] | None]  # messages and tools
IDENTIFIER = "call00001"  # of a call; Mistral's templates refuse those of other lengths
QUESTION: Turn = {"role": "user", "content": "Which weather?"}
ANSWER: Turn = {"role": "assistant", "content": "Fine."}
WEATHER = {  # a tool
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class ToolForm:
    """The parts of tool use that a template writes, and the form in which it takes calls.

    text_arguments: a call's arguments are JSON text; otherwise they are an object.
    text_beside: the text beside a call is written.
    """

    tools: bool = False
    calls: bool = False
    results: bool = False
    text_arguments: bool = False
    text_beside: bool = False

    def message(self, turn: Turn) -> dict[str, Any]:
        """A turn as this template takes it."""
        message = {key: turn[key] for key in KEYS if key in turn}
        if CALLS in turn and self.text_arguments:
            message[CALLS] = [_with_text_arguments(call) for call in turn[CALLS]]
        return message


def for_template(row: Row, count: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The first `count` messages of a conversation as the tokenizer's chat template takes them.

    Raises UserError if it would leave out tools, calls or their results.
    """
    messages = row.messages[:count]
    calls = any(CALLS in message for message in messages)
    results = any(message["role"] == TOOL for message in messages)
    if not (row.tools or calls or results):
        return list(map(ToolForm().message, messages))
    form = tool_form(tokenizer)
    needed = {
        "tools": row.tools and not form.tools,
        "tool calls": calls and not form.calls,
        "the results of tools": results and not form.results,
    }
    lacking = [part for part, is_lacking in needed.items() if is_lacking]
    if lacking:
        template = (
            "this tokenizer's chat template does not write"
            if tokenizer.chat_template
            else "this tokenizer has no chat template, which is needed for"
        )
        raise UserError(
            f"{row.place}: {template} {' and '.join(lacking)}; take a model that was trained to "
            "call tools, such as Qwen2.5 or Llama 3.2, or drop the rows that have them."
        )
    return list(map(form.message, messages))


def loses_text(row: Row, tokenizer: Tokenizer) -> bool:
    """Tell if the template leaves out the text beside a tool call of this conversation."""
    texts = any(CALLS in message and message["content"].strip() for message in row.messages)
    return texts and not tool_form(tokenizer).text_beside


def tool_form(tokenizer: Tokenizer) -> ToolForm:
    """The parts of tool use that the tokenizer's chat template writes; none without a template."""
    return _tool_form(tokenizer, str(tokenizer.chat_template or ""))


@lru_cache(maxsize=4)
def _tool_form(tokenizer: Tokenizer, template: str) -> ToolForm:
    """The form of one template, which is tested once."""
    if not template:
        return ToolForm(results=True)
    asked = [QUESTION, ANSWER]
    tools = _differ(tokenizer, (asked, [WEATHER]), (asked, None))
    for text_arguments in (False, True):
        form = ToolForm(tools, calls=True, text_arguments=text_arguments)
        oslo, bern = ([QUESTION, form.message(_call(city))] for city in ("Oslo", "Bern"))
        if _differ(tokenizer, (oslo, None), (bern, None)):
            break
    else:
        form, oslo = ToolForm(tools), asked
    beside = [QUESTION, form.message({**_call("Oslo"), "content": "Let me look."})]
    form = replace(form, text_beside=_differ(tokenizer, (beside, None), (oslo, None)))
    rain, snow = ([*oslo, _result(weather), ANSWER] for weather in ("rain", "snow"))
    return replace(form, results=_differ(tokenizer, (rain, None), (snow, None)))


def _call(city: str) -> Turn:
    function = {"name": "weather", "arguments": {"city": city}}
    call = {"id": IDENTIFIER, "type": "function", "function": function}
    return {"role": "assistant", "content": "", CALLS: [call]}


def _result(weather: str) -> Turn:
    return {"role": TOOL, "content": weather, "name": "weather", "tool_call_id": IDENTIFIER}


def _differ(tokenizer: Tokenizer, first: Talk, second: Talk) -> bool:
    """Tell if the template writes the first conversation, and the second one differently."""
    text = _text(tokenizer, *first)
    return bool(text) and text != _text(tokenizer, *second)


def _text(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> str:
    """The text of messages by the template; "" if it refuses them."""
    try:
        return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False))
    except REFUSALS:
        return ""


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as JSON text, as some templates take them."""
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
