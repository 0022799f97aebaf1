"""Lists in the cells of a table are read, however they were written."""

import json
from typing import Any

import pytest

from hanse.data.formats import written_lists
from hanse.data.formats.row import row
from hanse.data.formats.written_lists import read
from hanse.errors import UserError

np = pytest.importorskip("numpy")

TALK = [{"role": "user", "content": 'it\'s "so", [a]'}, {"role": "assistant", "content": "x\ny"}]
WRITTEN = [
    json.dumps(TALK),
    str(TALK),
    str(np.array(TALK, dtype=object)),
    json.dumps(TALK, indent=1),
]


@pytest.mark.parametrize("cell", WRITTEN)
@pytest.mark.parametrize("column", ["messages", "conversations", "Messages", "chat"])
def test_a_conversation_in_a_cell(cell: str, column: str) -> None:
    found = row({column: cell, "id": "1"}, "f:2")
    assert [(turn["role"], turn["content"]) for turn in found.messages] == [
        ("user", TALK[0]["content"]),
        ("assistant", TALK[1]["content"]),
    ]


@pytest.mark.parametrize(
    "write", [json.dumps, str, lambda turns: str(np.array(turns, dtype=object))]
)
def test_preferences_and_prompts_in_cells(write: Any) -> None:
    asked, answer = TALK[:1], TALK[1:]
    worse = [{"role": "assistant", "content": "no"}]
    found = row({"chosen": write(asked + answer), "rejected": write(asked + worse)}, "f:2")
    assert (found.chosen, found.rejected) == ("x\ny", "no")
    found = row({"prompt": write(asked), "completion": write(answer)}, "f:2")
    assert (found.kind, len(found.messages)) == ("messages", 2)


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        ('["a", "b c"]', '["X", "Y"]'),
        ("['a', 'b c']", "['X', 'Y']"),
        ("['a' 'b c']", "['X' 'Y']"),
        ("['a'\n 'b c']", "[0 3]"),
        ("['a', \"b c\"]", "[0, 3]"),
        ("a b_c", "X Y"),
    ],
)
def test_words_and_tags_in_cells(words: str, tags: str) -> None:
    found = row({"tokens": words, "ner_tags": tags}, "f:2")
    assert [word.replace("_", " ") for word in found.words] == ["a", "b c"]
    assert len(found.tags) == 2


@pytest.mark.parametrize(
    "text", ["[", "[]x", "[a]", "[1,", "[__import__('os')]", "[[" * 9999 + "]", "{'a': 1}", "['a"]
)
def test_other_texts_stay_texts(text: str) -> None:
    assert read(text) == text
    assert row({"text": text}, "f:2").text == text
    assert row({"question": text, "answer": text}, "f:2").messages[1]["content"] == text


def test_texts_in_brackets_are_not_parsed_as_python(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(written_lists, "_of_python", lambda text: parsed.append(text) or [])
    text = "[INST] a question [/INST]"
    assert read(text) == text
    monkeypatch.setattr(written_lists, "read", lambda value: parsed.append(value) or value)
    assert row({"prompt": "a", "completion": "b", "system": text}, "f:2").kind == "messages"
    assert row({"question": text, "answer": text, "input": text}, "f:2").kind == "messages"
    assert row({"text": text, "label": text}, "f:2").kind == "labelled"
    assert text not in parsed


def test_a_text_that_looks_like_a_list_is_a_text() -> None:
    assert row({"text": "[1, 2]", "label": "x"}, "f:2").text == "[1, 2]"
    assert row({"prompt": "sort [3, 1]", "completion": "[1, 3]"}, "f:2").completion == "[1, 3]"
    with pytest.raises(UserError, match="f:2: message 1 is a number; it needs role and content"):
        row({"messages": "[1]"}, "f:2")
