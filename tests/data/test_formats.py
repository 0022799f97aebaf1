"""The format of a record is found by its columns, and every fault is named with its place."""

from typing import Any

import pytest

from hanse.data.formats import row
from hanse.errors import UserError

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}


def test_each_format_is_found_by_its_columns() -> None:
    found = [
        row({"messages": [USER, ANSWER]}, "f:1"),
        row({"prompt": "a", "completion": "b"}, "f:2"),
        row({"text": "a", "label": 1}, "f:3"),
        row({"text": "a"}, "f:4"),
    ]
    assert [r.kind for r in found] == ["messages", "completion", "labelled", "text"]
    assert [dict(m) for m in found[0].messages] == [USER, ANSWER]
    assert (found[1].prompt, found[1].completion) == ("a", "b")
    assert found[3].place == "f:4"


@pytest.mark.parametrize(("label", "value"), [(1, "1"), ("pos", "pos"), (True, "True"), (0, "0")])
def test_labels_become_text(label: Any, value: str) -> None:
    found = row({"text": "a", "label": label}, "f:1")
    assert found.label == value
    assert found.fields == {"label": value}


def test_other_plain_columns_are_kept_as_text() -> None:
    record = {"text": "a", "source": "imdb", "stars": 4, "nested": {"a": 1}, "none": None}
    assert row(record, "f:1").fields == {"source": "imdb", "stars": "4"}


def test_a_label_beside_messages_is_kept_to_partition_by() -> None:
    found = row({"messages": [USER, ANSWER], "label": 3}, "f:1")
    assert (found.kind, found.label) == ("messages", "3")


def test_an_empty_prompt_is_allowed() -> None:
    assert row({"prompt": "", "completion": "b"}, "f:1").kind == "completion"


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"body": "a", "x": 1}, "f:7: the columns 'body', 'x' fit no known format; known are "),
        ({"body": "a"}, r"are messages, prompt \+ completion, text \+ label, text; rename"),
        ({}, r"f:7: the columns \(none\) fit no known format"),
        ({"text": "  "}, "f:7: text is empty; write some text there or drop the row"),
        ({"prompt": "a", "completion": ""}, "f:7: completion is empty"),
        ({"text": 3}, "f:7: text came as a number; write it as text in quotes"),
        ({"text": None}, "f:7: text came as null"),
        ({"prompt": [USER], "completion": "b"}, "f:7: prompt came as a list"),
        ({"text": "a", "label": None}, "f:7: label came as empty; a label is a word, a whole"),
        ({"text": "a", "label": ""}, "f:7: label came as empty"),
        ({"text": "a", "label": 0.5}, "f:7: label came as 0.5"),
        ({"text": "a", "label": [1]}, r"f:7: label came as \[1\]"),
        ({"text": "\ud83d"}, "f:7: text holds half of a surrogate pair"),
        ({"messages": "hi"}, r"f:7: messages came as text; write a list of \{role, content\}"),
        ({"messages": []}, "f:7: no assistant turn follows another one in these 0 messages"),
        ({"messages": [USER, USER]}, "f:7: no assistant turn follows .* 2 messages"),
        ({"messages": [ANSWER, USER]}, "f:7: no assistant turn follows"),
        ({"messages": [USER, {"role": "assistant"}]}, "f:7: message 2 came as the keys 'role'"),
        ({"messages": [{"content": "a"}, ANSWER]}, "message 1 .* needs role and content"),
        ({"messages": [USER, "hello"]}, "f:7: message 2 came as text; it needs role and content"),
        ({"messages": [{}, ANSWER]}, "f:7: message 1 came as"),
        (
            {"messages": [{"role": "human", "content": "a"}, ANSWER]},
            "f:7: message 1 has the role 'human'; roles are system, user, assistant",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "f:7: the content of message 2 came as null",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "\udc00"}]},
            "f:7: content holds half of a surrogate pair",
        ),
    ],
)
def test_faults_are_named_with_their_place(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        row(record, "f:7")
