"""Tool calls reach real chat templates whole, and only what the assistant says is learned."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from hanse.data.example import IGNORED, Lost
from hanse.data.formats.row import Row, row
from hanse.data.tokenization.render import render
from hanse.data.tokenization.tool_use import tool_form
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.client_examples import Reader
from hanse.experiment.assembly.dataset.cut_rows import Limits, cut

TEMPLATES = Path(__file__).with_name("chat_templates")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "track",
            "description": "Find a parcel.",
            "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}},
        },
    }
]


def _call(number: int) -> dict[str, Any]:
    function = {"name": "track", "arguments": {"id": number}}
    return {"id": f"c{number}", "type": "function", "function": function}


TALK: list[dict[str, Any]] = [  # as chat templates take it
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Parcel 7?"},
    {"role": "assistant", "content": "", "tool_calls": [_call(7)]},
    {"role": "tool", "tool_call_id": "c7", "content": '{"place": "Bremen"}'},
    {"role": "assistant", "content": "In Bremen."},
    {"role": "user", "content": "And 8?"},
    {"role": "assistant", "content": "", "tool_calls": [_call(8)]},
    {"role": "tool", "tool_call_id": "c8", "content": "lost"},
    {"role": "assistant", "content": "Lost."},
]
LEARNED = {
    "llama3_2.jinja": [
        '{"name": "track", "parameters": {"id": 7}}<|eot_id|>',
        "In Bremen.<|eot_id|>",
        '{"name": "track", "parameters": {"id": 8}}<|eot_id|>',
        "Lost.<|eot_id|>",
    ],
    "qwen2_5.jinja": [
        '<tool_call>\n{"name": "track", "arguments": {"id": 7}}\n</tool_call><|im_end|>',
        "In Bremen.<|im_end|>",
        '<tool_call>\n{"name": "track", "arguments": {"id": 8}}\n</tool_call><|im_end|>',
        "Lost.<|im_end|>",
    ],
    "qwen3.jinja": [  # an answer before the last question is written without its thought
        '<tool_call>\n{"name": "track", "arguments": {"id": 7}}\n</tool_call><|im_end|>',
        '<tool_call>\n{"name": "track", "arguments": {"id": 8}}\n</tool_call><|im_end|>',
        "<think>\n\n</think>\n\nLost.<|im_end|>",
    ],
}


@pytest.fixture
def tokenizer(chatml: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte and for the ends of turns, and no template yet."""
    backend = PreTrainedTokenizerFast(
        tokenizer_object=chatml.backend_tokenizer, eos_token="<|im_end|>"
    )
    backend.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|im_start|>"]})
    return backend


def _openai(message: dict[str, Any]) -> dict[str, Any]:
    """A message as OpenAI's files have it: JSON text as arguments, null as content."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(function["arguments"])}}
        for call in message["tool_calls"]
        for function in [call["function"]]
    ]
    return {**message, "content": None, "tool_calls": calls}


def _sharegpt(message: dict[str, Any]) -> dict[str, Any]:
    """A message as LLaMA-Factory's files have it."""
    names = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
    if "tool_calls" in message:
        [call] = message["tool_calls"]
        return {"from": "function_call", "value": json.dumps(call["function"])}
    return {"from": names[message["role"]], "value": message["content"]}


def _legacy(message: dict[str, Any]) -> dict[str, Any]:
    """A message as OpenAI's older files have it."""
    if "tool_calls" in message:
        function = _openai(message)["tool_calls"][0]["function"]
        return {"role": "assistant", "content": None, "function_call": function}
    role = "function" if message["role"] == "tool" else message["role"]
    return {"role": role, "name": "track", "content": message["content"]}


RECORDS = {
    "openai": {"messages": list(map(_openai, TALK)), "tools": TOOLS},
    "text": {"messages": list(map(_openai, TALK)), "tools": json.dumps(TOOLS)},
    "sharegpt": {
        "conversations": list(map(_sharegpt, TALK)),
        "tools": json.dumps([tool["function"] for tool in TOOLS]),
    },
    "legacy": {
        "messages": list(map(_legacy, TALK)),
        "functions": [tool["function"] for tool in TOOLS],
    },
}


@pytest.mark.parametrize("template", LEARNED)
@pytest.mark.parametrize("form", RECORDS)
def test_calls_are_written_as_transformers_writes_them_and_learned(
    tokenizer: PreTrainedTokenizerFast, template: str, form: str
) -> None:
    tokenizer.chat_template = (TEMPLATES / template).read_text(encoding="utf-8")
    [example] = render([row(RECORDS[form], "f:1")], tokenizer, "tokens", {}, "{text}", 10_000)
    text = tokenizer.apply_chat_template(TALK, tools=TOOLS, tokenize=False)
    assert tokenizer.decode(example.ids) == text
    learned = "".join(
        tokenizer.decode([token]) if label != IGNORED else "\0"
        for token, label in zip(example.ids, example.labels, strict=True)
    )
    assert [part for part in learned.split("\0") if part] == LEARNED[template]
    assert example.answer == "Lost."


@pytest.mark.parametrize("template", LEARNED)
@pytest.mark.parametrize("called", [0, 1])
def test_of_two_answers_one_may_be_a_call(
    tokenizer: PreTrainedTokenizerFast, template: str, called: int
) -> None:
    """Each half is what transformers writes of its whole conversation; its last turn is learned."""
    tokenizer.chat_template = (TEMPLATES / template).read_text(encoding="utf-8")
    answers = [TALK[2], {"role": "assistant", "content": "I do not know."}]
    answers = answers[::-1] if called else answers
    talks = [[*TALK[:2], answer] for answer in answers]
    record = {"prompt": TALK[:2], "tools": TOOLS}
    record |= dict(zip(("chosen", "rejected"), ([_openai(a)] for a in answers), strict=True))
    [example] = render([row(record, "f:1")], tokenizer, "answer_pairs", {}, "{text}", 10_000)
    halves = (slice(example.rejected), slice(example.rejected, None))
    for half, messages in zip(halves, talks, strict=True):
        whole = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False)
        asked = tokenizer.apply_chat_template(
            messages[:2], tools=TOOLS, tokenize=False, add_generation_prompt=True
        )
        assert tokenizer.decode(example.ids[half]) == whole
        learned = [label for label in example.labels[half] if label != IGNORED]
        assert tokenizer.decode(learned) == whole.removeprefix(asked).rstrip()


def _talk(*messages: dict[str, Any], tools: Any = None) -> Row:
    record = {"messages": [{"role": "user", "content": "Parcel 7?"}, *messages]}
    return row(record if tools is None else {**record, "tools": tools}, "f:1")


CALL = {"role": "assistant", "content": "Let me look.", "tool_calls": [_call(7)]}
RESULT = {"role": "tool", "content": "lost"}
ANSWER = {"role": "assistant", "content": "Lost."}


@pytest.mark.parametrize(
    ("talk", "lacking"),
    [
        (_talk(ANSWER, tools=TOOLS), "tools"),
        (_talk(CALL), "tool calls"),
        (_talk(CALL, RESULT, ANSWER, tools=TOOLS), "tools and tool calls"),
    ],
)
def test_a_template_that_leaves_tools_out_is_refused(
    chatml: PreTrainedTokenizerFast, talk: Row, lacking: str
) -> None:
    with pytest.raises(UserError, match=f"f:1: this tokenizer's .* does not write {lacking}; "):
        render([talk], chatml, "tokens", {}, "{text}", 1000)


def test_a_tokenizer_without_template_has_no_tools(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"f:1: .* no chat template, .* for tool calls; take"):
        render([_talk(CALL)], plain, "tokens", {}, "{text}", 1000)


def test_results_of_calls_that_are_text_need_no_calls(chatml: PreTrainedTokenizerFast) -> None:
    talk = _talk({"role": "assistant", "content": "<call>track 7</call>"}, RESULT, ANSWER)
    [example] = render([talk], chatml, "tokens", {}, "{text}", 1000)
    assert "<|im_start|>tool\nlost<|im_end|>" in chatml.decode(example.ids)


DEEPSEEK = (  # the arguments of its calls are text
    "{% for m in messages %}[{{ m['role'] }}]{% if m['tool_calls'] %}"
    "{{ m['tool_calls'][0]['function']['name'] + '(' "
    "+ m['tool_calls'][0]['function']['arguments'] + ')' }}{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_template_gets_calls_in_the_form_that_it_takes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = DEEPSEEK
    form = tool_form(tokenizer)
    assert (form.calls, form.text_arguments, form.tools) == (True, True, False)
    talk = _talk({**CALL, "content": None}, RESULT, ANSWER)
    [example] = render([talk], tokenizer, "tokens", {}, "{text}", 1000)
    assert tokenizer.decode(example.ids) == (
        '[user]Parcel 7?<|im_end|>[assistant]track({"id": 7})<|im_end|>[tool]lost<|im_end|>'
        "[assistant]Lost.<|im_end|>"
    )


def test_a_conversation_that_ends_in_a_call_has_it_as_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = (TEMPLATES / "qwen2_5.jinja").read_text(encoding="utf-8")
    call = 'Let me look.\n<tool_call>\n{"name": "track", "arguments": {"id": 7}}\n</tool_call>'
    [example] = render([_talk(CALL)], tokenizer, "tokens", {}, "{text}", 2000)
    [pair] = render([_talk(CALL)], tokenizer, "prompt_answer", {}, "{text}", 2000)
    assert example.answer == pair.answer == call


@pytest.mark.parametrize(("template", "lost"), [("llama3_2", 1), ("qwen2_5", 0), ("qwen3", 0)])
def test_text_beside_a_call_that_a_template_leaves_out_is_said(
    tokenizer: PreTrainedTokenizerFast, template: str, lost: int
) -> None:
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    talks = [_talk(CALL, RESULT, ANSWER), _talk({**CALL, "content": None})]
    examples = render(talks, tokenizer, "tokens", {}, "{text}", 2000)
    assert [example.lost for example in examples] == [Lost.BESIDE_CALL * lost, Lost.NOTHING]
    limits = {Reader("a"): Limits("model", 2000, "windows")}
    remarks = [*cut({Reader("a"): {"train": examples}}, limits)]
    assert [remark[:85] for remark in remarks] == lost * [
        "the chat template leaves out the text beside a tool call in 1 of 2 training rows; wri"
    ]


def test_rows_that_differ_in_tools_alone_are_different_examples() -> None:
    from hanse.data.holdout import without
    from hanse.experiment.assembly.dataset.source_rows import digest

    first, second = _talk(ANSWER, tools=TOOLS), _talk(ANSWER)
    assert without([first], [second]) == [first] and without([first], [first]) == []
    assert digest([first]) != digest([second])
