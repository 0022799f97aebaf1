"""Tools and their calls become OpenAI's form, whichever tool wrote them."""

from typing import Any

import pytest

from hanse.data.formats.row import row, rows
from hanse.errors import UserError

ASK = {"role": "user", "content": "7?"}
FUNCTION = {"name": "track", "arguments": {"id": 7}}
CALLED = ({"type": "function", "function": FUNCTION},)


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": FUNCTION}]},
        {"role": "assistant", "content": None, "tool_calls": [FUNCTION]},
        {"role": "assistant", "content": "", "function_call": FUNCTION},
        {"role": "tool_call", "content": '{"name": "track", "arguments": {"id": 7}}'},
        {"from": "function_call", "value": '[{"name": "track", "parameters": "{\\"id\\": 7}"}]'},
    ],
)
def test_a_call_in_any_form(turn: dict[str, Any]) -> None:
    messages = row({"messages": [ASK, turn]}, "f:1").messages
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": CALLED}


def test_a_thought_before_a_call_is_its_text() -> None:
    value = '<think>Hm.</think>{"name": "track", "arguments": {"id": 7}}'
    turns = [{"from": "human", "value": "7?"}, {"from": "function_call", "value": value}]
    found = row({"conversations": turns}, "f:1").messages[1]
    assert (found["content"], found["tool_calls"]) == ("<think>Hm.</think>", CALLED)


@pytest.mark.parametrize("role", ["tool", "observation", "function", "tool_response", "ipython"])
@pytest.mark.parametrize(("content", "text"), [({"a": "é"}, '{"a": "é"}'), ("", ""), ("x", "x")])
def test_a_result_is_text(role: str, content: Any, text: str) -> None:
    turns = [ASK, CALLED_TURN, {"role": role, "content": content}, ANSWER]
    assert row({"messages": turns}, "f:1").messages[2] == {"role": "tool", "content": text}


CALLED_TURN = {"role": "assistant", "content": None, "tool_calls": list(CALLED)}
ANSWER = {"role": "assistant", "content": "Lost."}


@pytest.mark.parametrize("tools", ["", "[]", None, [], " "])
def test_no_tools(tools: Any) -> None:
    assert row({"messages": [ASK, ANSWER], "tools": tools}, "f:1").tools == ()


@pytest.mark.parametrize(
    "tools", ["a pan, a knife", ["pan", "knife"], "['pan', 'knife']", "[pan]", [7], 3]
)
def test_a_column_of_another_meaning_is_a_field(tools: Any) -> None:
    record = {"instruction": "Cook.", "output": "Done.", "tools": tools}
    found = row(record, "f:1")
    assert found.tools == () and found.reading is not None and found.reading.unread == ("tools",)
    assert found.fields == ({} if isinstance(tools, list) else {"tools": str(tools)})
    with pytest.raises(UserError, match="f:1: tool"):
        row(record, "f:1", {"tools": "tools"})


@pytest.mark.parametrize("tools", ['{"name": "track"}', [' {"name": "track"}'], {"name": "track"}])
def test_tools_in_other_forms_than_a_list_of_objects(tools: Any) -> None:
    found = row({"messages": [ASK, ANSWER], "tools": tools}, "f:1")
    assert found.tools == ({"type": "function", "function": {"name": "track"}},)


def test_tools_make_a_conversation_of_a_prompt() -> None:
    found = row({"prompt": "7?", "completion": "Lost.", "tools": [{"name": "track"}]}, "f:1")
    assert found.kind == "messages"
    assert found.tools == ({"type": "function", "function": {"name": "track"}},)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([[{"name": "track"}], None, [], ""], "messages"),
        ([None, '[{"name": "track"}]', "[]"], "messages"),
        (["a pan", None, ["pan", "knife"]], "completion"),
        ([None, None], "completion"),
    ],
)
def test_all_rows_beside_tools_are_of_one_kind(cells: list[Any], kind: str) -> None:
    records = [{"prompt": "7?", "completion": "Lost.", "tools": cell} for cell in cells]
    found = rows(((f"f:{n}", record) for n, record in enumerate(records)), "f", {})
    assert {row.kind for row in found} == {kind} and len(found) == len(cells)


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ('[{"name": "track", "arguments": {"id": 7}}]', CALLED),
        ([{"name": "track", "arguments": {"id": 7}}], CALLED),
        ({"name": "track", "arguments": {"id": 7}}, CALLED),
        ("[not a call]", None),
        ('{"id": 7}', None),
        ("Lost.", None),
    ],
)
def test_an_answer_beside_tools_may_be_calls(answer: Any, calls: Any) -> None:
    record = {"query": "7?", "answers": answer, "tools": '[{"name": "track"}]'}
    assert row(record, "f:1").messages[1].get("tool_calls") == calls


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"messages": [ASK, ANSWER], "tools": "[{"}, "tools cannot be read as JSON"),
        ({"messages": [ASK, ANSWER], "tools": [{"a": 1}]}, "tool 1 has the keys 'a'; write"),
        ({"messages": [ASK, ANSWER], "tools": [{"name": "a"}, 7]}, "tool 2 is a number; write"),
        (
            {"messages": [ASK, {"role": "function_call", "content": "track 7"}]},
            "the tool calls of message 2 cannot be read as JSON",
        ),
        (
            {"messages": [ASK, {**ANSWER, "tool_calls": [{**FUNCTION, "arguments": "7,"}]}]},
            "the arguments of tool call 1 of message 2 cannot be read as JSON",
        ),
        (
            {"messages": [ASK, {**ANSWER, "tool_calls": [{**FUNCTION, "arguments": "7"}]}]},
            "the arguments of tool call 1 of message 2 are a number; write an object",
        ),
        (
            {"messages": [{**ASK, "tool_calls": list(CALLED)}, ANSWER]},
            "message 1 has tool calls, but the role user",
        ),
        (
            {"prompt": [ASK], "chosen": [CALLED_TURN], "rejected": [CALLED_TURN]},
            "chosen and rejected are the same answer",
        ),
    ],
)
def test_what_is_wrong_with_tools_is_named(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=f"f:1: {sentence}"):
        row(record, "f:1")
