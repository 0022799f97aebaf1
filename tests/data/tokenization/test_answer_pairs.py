"""Preferences and verdicts as examples: prompts, learned tokens, cut ones, and bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row, row, rows
from hanse.data.packed import Examples, Packed, join, pack
from hanse.data.tokenization.render import render, show
from hanse.errors import UserError

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello there, it is a day."},
    {"role": "assistant", "content": "What a day!"},
    {"role": "user", "content": "And now?"},
]


def _row(record: dict[str, Any], judged: bool = False) -> Row:
    return row(record, "f:4", judged=judged)


def _pair(record: dict[str, Any], tokenizer: Any, room: int = 512) -> Example:
    return render([_row(record)], tokenizer, "answer_pairs", {}, "{text}", room)[0]


def _halves(example: Example) -> tuple[Example, Example]:
    """The two rows of a pair."""
    at = example.rejected
    return (
        Example(example.ids[:at], example.labels[:at]),
        Example(example.ids[at:], example.labels[at:]),
    )


def _text(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(example.ids))


def _learned(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != IGNORED]))


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


TEXTS = {"prompt": "What is it? ", "chosen": "A day.", "rejected": "No, a much longer night."}
IMPLICIT = {"chosen": "What is it? A day.", "rejected": "What is it? A much longer night."}
CHATS = [
    {"prompt": TALK, "chosen": _answer("Tea."), "rejected": _answer("Much more of the work.")},
    {
        "chosen": [*TALK, *_answer("Tea.")],
        "rejected": [*TALK, *_answer("Much more of the work.")],
    },
]


def test_both_answers_follow_the_same_prompt(plain: PreTrainedTokenizerFast) -> None:
    example = _pair(TEXTS, plain)
    chosen, rejected = _halves(example)
    end = plain.eos_token
    assert _text(chosen, plain) == f"<s>What is it? A day.{end}"
    assert _text(rejected, plain) == f"<s>What is it? No, a much longer night.{end}"
    assert _learned(chosen, plain).strip() == f"A day.{end}"
    assert _learned(rejected, plain).strip() == f"No, a much longer night.{end}"
    assert (example.answer, len(example)) == ("A day.", len(chosen) + len(rejected))
    assert example.longest == len(rejected)
    assert example.ids[: example.prompt] == rejected.ids[: example.prompt]
    assert example.lost == Lost.NOTHING


@pytest.mark.parametrize("record", CHATS)
def test_of_a_conversation_the_last_answers_alone_are_learned(
    chatml: PreTrainedTokenizerFast, record: dict[str, Any]
) -> None:
    example = _pair(record, chatml)
    for half, answer in zip(_halves(example), ("Tea.", "Much more of the work."), strict=True):
        assert "What a day!" in _text(half, chatml)
        assert _learned(half, chatml).strip().startswith(answer)
        assert "day" not in _learned(half, chatml)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("What is it? A day.", "What is it? A night.", "What is it? A"),
        ("sky is blue", "sky is black", "sky is"),
        ("one", "two", ""),
        ("a b", "a b c", "a"),  # something is left of both
        ("a b ", "a b c", "a"),
        ("blue", "black", ""),
    ],
)
def test_a_prompt_that_both_texts_repeat_is_found(chosen: str, rejected: str, prompt: str) -> None:
    found = _row({"chosen": chosen, "rejected": rejected})
    assert found.prompt == prompt
    assert (found.prompt + found.chosen, found.prompt + found.rejected) == (chosen, rejected)
    assert found.chosen.strip() and found.rejected.strip()


QUESTION = {"from": "human", "value": "Tea?"}
GOOD, BAD = {"from": "gpt", "value": "Yes."}, {"from": "gpt", "value": "No."}


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [QUESTION], "chosen": GOOD, "rejected": BAD},
        {"conversations": [QUESTION], "chosen": [GOOD], "rejected": [BAD]},
        {"messages": [{"role": "user", "content": "Tea?"}], "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Tea?", "chosen": [GOOD], "rejected": BAD},
    ],
)
def test_answers_beside_an_open_question_are_a_preference(record: dict[str, Any]) -> None:
    """LLaMA-Factory's form among them."""
    found = _row(record)
    assert (found.messages, found.chosen, found.rejected) == (
        ({"role": "user", "content": "Tea?"},),
        "Yes.",
        "No.",
    )
    assert found.kind == "preference" and found.reading and not found.reading.unread


def test_answers_beside_an_answered_question_are_not_used() -> None:
    found = _row({"conversations": [QUESTION, GOOD], "chosen": GOOD, "rejected": BAD})
    assert found.kind == "messages" and found.messages[-1]["content"] == "Yes."
    assert found.reading and found.reading.unread == ("chosen", "rejected")


def test_the_better_answers_to_open_questions_can_be_learned_alone() -> None:
    record = {"conversations": [QUESTION], "chosen": GOOD, "rejected": BAD}
    found = row(record, "f:4", {"completion": "chosen"})
    assert [turn["content"] for turn in found.messages] == ["Tea?", "Yes."]


@pytest.mark.parametrize("order", [False, True])
def test_a_long_prompt_loses_the_same_part_for_both_answers(
    plain: PreTrainedTokenizerFast, order: bool
) -> None:
    texts = ("A day.", "No, a much longer night of the work, and now much more of the day.")
    chosen, rejected = texts[::-1] if order else texts
    record = {"prompt": "What is it? " * 40, "chosen": chosen, "rejected": rejected}
    example = _pair(record, plain, 160)
    first, second = _halves(example)
    assert max(len(first), len(second)) == 160 == example.longest
    assert first.ids[: example.prompt] == second.ids[: example.prompt]
    assert first.ids[0] == plain.bos_token_id
    assert example.lost == Lost.PROMPT


def test_a_long_conversation_loses_the_same_turns_for_both_answers(
    chatml: PreTrainedTokenizerFast,
) -> None:
    messages = [TALK[0], *TALK[1:3] * 6, TALK[3]]
    record = {
        "prompt": messages,
        "chosen": _answer("Tea."),
        "rejected": _answer("Much more of the work and of the day, and now the night."),
    }
    whole = _pair(record, chatml)
    example = _pair(record, chatml, whole.longest - 5)
    first, second = (_text(half, chatml) for half in _halves(example))
    assert first.count("Hello") == second.count("Hello") < 6
    assert first.count("Be kind") == second.count("Be kind") == 1
    assert example.lost == Lost.TURNS
    assert example.longest <= whole.longest - 5


def test_answers_that_differ_in_what_is_cut_are_refused(plain: PreTrainedTokenizerFast) -> None:
    long = "A day " * 60
    record = {"prompt": "What? ", "chosen": f"{long}one", "rejected": f"{long}two"}
    with pytest.raises(UserError, match="f:4: with max_length 40 the chosen and the rejected"):
        _pair(record, plain, 40)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**TEXTS, "rejected": " A day. "}, "f:4: chosen and rejected are the same answer"),
        ({**CHATS[0], "rejected": _answer("Tea.")}, "f:4: chosen and rejected are the same"),
        ({**TEXTS, "rejected": "  "}, "f:4: rejected is empty"),
        ({**TEXTS, "chosen": ""}, "f:4: chosen is empty"),
        ({**TEXTS, "rejected": None}, "f:4: rejected is null"),
        (
            {"prompt": "a", "chosen": "b"},
            r"f:4: the columns 'prompt', 'chosen' fit no known format",
        ),
        ({**CHATS[0], "rejected": []}, "f:4: rejected does not end in an assistant turn"),
    ],
)
def test_bad_pairs(record: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _row(record)


def test_other_rows_are_no_pairs(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"f:4 has prompt \+ completion, but .* compares two"):
        _pair({"prompt": "a", "completion": "b"}, plain)


def test_check_shows_both_answers(plain: PreTrainedTokenizerFast) -> None:
    shown = show(_pair(TEXTS, plain), plain)
    text = "".join(piece for piece, _ in shown)
    assert text == (
        f"<s>What is it? A day.{plain.eos_token}\n[rejected] No, a much longer night."
        f"{plain.eos_token}"
    )
    learned = "".join(piece for piece, flag in shown if flag)
    assert learned.strip() == f"A day.{plain.eos_token}"


def _verdict(record: dict[str, Any], tokenizer: Any) -> Example:
    return render([_row(record, judged=True)], tokenizer, "verdicts", {}, "{text}", 512)[0]


@pytest.mark.parametrize(
    ("value", "verdict"), [(True, 1.0), (False, 0.0), ("False", 0.0), (0.25, 0.25), (-3, -3.0)]
)
@pytest.mark.parametrize("column", ["label", "kto_tag", "verdict"])
def test_a_verdict_is_true_false_or_a_number(
    plain: PreTrainedTokenizerFast, column: str, value: Any, verdict: float
) -> None:
    example = _verdict({"prompt": "What? ", "completion": "A day.", column: value}, plain)
    assert example.verdict == verdict
    assert _learned(example, plain).strip() == f"A day.{plain.eos_token}"
    shown = "".join(text for text, _ in show(example, plain))
    assert shown.endswith(f"\n[verdict {verdict:g}]")


def test_a_verdict_concerns_the_last_answer_of_a_conversation(
    chatml: PreTrainedTokenizerFast,
) -> None:
    example = _verdict({"messages": [*TALK, *_answer("Tea.")], "label": False}, chatml)
    assert _learned(example, chatml).strip().startswith("Tea.")
    assert example.verdict == 0.0


def test_a_verdict_in_a_column_of_another_name(plain: PreTrainedTokenizerFast) -> None:
    records = [("f:1", {"prompt": "a", "completion": "b", "score": 0.5, "topic": "x"})]
    [found] = rows(records, "f", {"verdict": "score"}, judged=True)
    assert (found.verdict, found.fields["score"], found.fields["topic"]) == ("0.5", "0.5", "x")


def test_bad_answers_are_rows_only_if_verdicts_are_learned() -> None:
    records = [
        (f"f:{n}", {"prompt": "a", "completion": "b", "label": n > 1, "verdict": False})
        for n in range(1, 4)
    ]
    remarks: list[str] = []
    assert len(rows(records, "f", {}, remarks.append)) == 2
    assert len(rows(records, "f", {"verdict": "label"}, remarks.append)) == 2
    assert remarks[0] == remarks[1] and "1 of 3 rows" in remarks[0]
    assert len(rows(records, "f", {"verdict": "label"}, remarks.append, judged=True)) == 3
    assert len(remarks) == 2


@pytest.mark.parametrize("value", ["good", "nan", "inf", "1 2"])
def test_no_verdict(plain: PreTrainedTokenizerFast, value: str) -> None:
    record = {"prompt": "a", "completion": "b", "label": value}
    with pytest.raises(UserError, match=r"f:4: the verdict is .* true, false or a number"):
        _verdict(record, plain)


@pytest.mark.parametrize("record", [{}, {"label": None}, {"label": " "}])
def test_a_missing_verdict(plain: PreTrainedTokenizerFast, record: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="f:4 has no verdict on its answer"):
        _verdict({"prompt": "a", "completion": "b", **record}, plain)


def test_verdicts_need_answers(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"f:4 has text \+ label, but .* verdicts on answers"):
        _verdict({"text": "a", "label": "true"}, plain)


def test_a_bad_answer_is_not_learned_as_a_good_one(plain: PreTrainedTokenizerFast) -> None:
    bad = _row({"prompt": "a", "completion": "b", "label": False}, judged=True)
    with pytest.raises(UserError, match="f:4 marks its answer as a bad one"):
        render([bad], plain, "tokens", {}, "{text}", 512)


def test_packed_examples_keep_pairs_and_verdicts(plain: PreTrainedTokenizerFast) -> None:
    pair = _pair(TEXTS, plain)
    good = _verdict({"prompt": "What? ", "completion": "A day.", "label": 0.1}, plain)
    examples = [pair, good, replace(good, verdict=None), pair, replace(good, verdict=0.0)]
    packed = join([pack(examples[:2]), pack([]), pack(examples[2:])])
    places = np.arange(len(examples), dtype=np.int32)
    assert list(Examples(packed, places)) == examples
    assert list(Examples(Packed.of(packed.arrays()), places)) == examples
