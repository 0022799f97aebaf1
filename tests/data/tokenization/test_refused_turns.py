"""A template that refuses system turns, or turns that do not alternate, gets a way out."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from hanse.data.formats.row import Row, row
from hanse.data.formats.system_turns import apply
from hanse.data.tokenization.conversations import conversation
from hanse.errors import UserError

GEMMA = Path(__file__).with_name("chat_templates") / "gemma.jinja"
S, U, A = ({"role": role, "content": role[0]} for role in ("system", "user", "assistant"))


@pytest.fixture
def gemma(chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(chatml, "chat_template", GEMMA.read_text(encoding="utf-8"))
    return chatml


def _talk(*messages: dict[str, str]) -> Row:
    return row({"messages": list(messages)}, "f:1")


@pytest.mark.parametrize(
    ("talk", "sentence"),
    [
        (_talk(S, U, A), "System role not supported; let data.system: merge put the system turn"),
        (_talk(U, U, A), r"alternate .*; two messages of the user follow .*'u' and 'u'\): join"),
        (_talk(U, A, A), r"alternate .*; two messages of the assistant follow one another"),
        (_talk(A, U, A), r"alternate .*; change their roles or their order, or take a model with"),
    ],
)
def test_the_refusal_names_a_way_out(gemma: object, talk: Row, sentence: str) -> None:
    with pytest.raises(UserError, match=f"f:1: this tokenizer's chat template .*: .*{sentence}"):
        conversation(talk, gemma)


def test_a_merged_system_turn_is_written(gemma: object) -> None:
    talk = _talk(S, U, A)
    merged = replace(talk, messages=apply(talk.messages, "merge"))
    assert conversation(merged, gemma).text == (
        "<start_of_turn>user\ns\n\nu<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n"
    )
