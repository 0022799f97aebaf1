"""What is learned is checked token by token: most tokenizers here have one token a character."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from hanse.data.example import IGNORED, Example
from hanse.data.formats.row import Row, row
from hanse.data.tokenization.label_words import label_words
from hanse.data.tokenization.render import render, show
from hanse.errors import UserError

WORDS = {"0": "negative", "1": "positive"}
TEMPLATE = "Review: {text}\nIt is"


def _talk(*contents: str, system: str = "") -> Row:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return row({"messages": messages}, "f:1")


def _example(
    found: Row, tokenizer: Any, example_kind: str = "tokens", max_length: int = 200, **settings: Any
) -> Example:
    settings = {"labels": WORDS, "template": TEMPLATE, **settings}
    (example,) = render([found], tokenizer, example_kind, max_length=max_length, **settings)
    return example


def _learned(example: Example, tokenizer: Any) -> str:
    """The tokens with the learned ones in brackets, after checking that labels are their ids."""
    assert len(example.labels) == len(example.ids) == len(example)
    assert all(b in (a, IGNORED) for a, b in zip(example.ids, example.labels, strict=True))
    return "".join(
        f"[{tokenizer.decode([token])}]" if label != IGNORED else tokenizer.decode([token])
        for token, label in zip(example.ids, example.labels, strict=True)
    )


def test_only_what_the_assistant_says_is_learned_with_its_end(
    chatml: PreTrainedTokenizerFast,
) -> None:
    example = _example(_talk("hi", "yo", "so", "é", "unanswered", system="S"), chatml)
    assert _learned(example, chatml).replace("�", "?") == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[y][o][<|im_end|>]\n"
        "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n[?][?][<|im_end|>]\n"
    )


def test_a_turn_that_opens_the_conversation_is_read_only(chatml: PreTrainedTokenizerFast) -> None:
    talk = row(
        {
            "messages": [
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
            ]
        },
        "f:1",
    )
    assert _learned(_example(talk, chatml), chatml).count("[") == 2  # c and the end of its turn


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"loss_mask": 0}])
def test_an_answer_marked_so_is_read_only(
    chatml: PreTrainedTokenizerFast, mark: dict[str, Any]
) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "BAD", **mark},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": "WORSE", **mark},
    ]
    example = _example(row({"messages": turns}, "f:1"), chatml)
    assert _learned(example, chatml) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nBAD<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d][<|im_end|>]\n"
    )
    assert example.answer == "d" and chatml.decode(example.ids[example.prompt]) == "d"
    [pair] = render([row({"messages": turns}, "f:1")], chatml, "prompt_answer", {}, TEMPLATE, 200)
    assert pair.answer == "d"
    assert chatml.decode(pair.ids[pair.prompt :]) == "d<|im_end|>"
    assert chatml.decode(pair.ids[: pair.prompt]).endswith("c<|im_end|>\n<|im_start|>assistant\n")


def test_a_tokenizer_without_template_gets_a_plain_one(plain: PreTrainedTokenizerFast) -> None:
    assert _learned(_example(_talk("hi", "yo"), plain), plain) == (
        "<s>user: hi\nassistant:[ ][y][o][<|im_end|>]\n"
    )


def test_a_template_that_rewrites_earlier_turns_learns_the_last(
    chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinking = (
        "{% for m in messages %}{{ m.role }}>"
        "{% if m.role == 'assistant' and loop.last %}?{% endif %}"
        "{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant>{% endif %}"
    )
    monkeypatch.setattr(chatml, "chat_template", thinking)
    assert _learned(_example(_talk("a", "b", "c", "d"), chatml), chatml) == (
        "user>a;assistant>b;user>c;assistant>[?][d][;]"
    )


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{% if add_generation_prompt %}X{% endif %}{{ messages[-1].content }}",
            "does not begin an answer",
        ),
        ("{{ raise_exception('no system role') }}", "refuses these messages: no system role"),
    ],
)
def test_a_template_that_cannot_be_used(
    chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, template: str, sentence: str
) -> None:
    monkeypatch.setattr(chatml, "chat_template", template)
    with pytest.raises(UserError, match=f"f:1: this tokenizer's chat template {sentence}"):
        _example(_talk("a", "b"), chatml)


def test_a_completion_and_its_end_are_learned(plain: PreTrainedTokenizerFast) -> None:
    found = Row(prompt="1+1=", completion="2!")
    assert _learned(_example(found, plain), plain) == "<s>1+1=[2][!][<|im_end|>]"


def test_an_end_that_is_written_is_not_added_again(plain: PreTrainedTokenizerFast) -> None:
    found = Row(prompt="a", completion="b<|im_end|>")
    assert _learned(_example(found, plain), plain) == "<s>a[b][<|im_end|>]"


def test_a_token_across_the_border_is_learned(words: PreTrainedTokenizerFast) -> None:
    example = _example(Row(prompt="the film ", completion="was good"), words)
    assert _learned(example, words) == "the film[ was][ good][<|im_end|>]"


def test_every_token_of_a_text_is_learned_but_the_first(
    plain: PreTrainedTokenizerFast, chatml: PreTrainedTokenizerFast
) -> None:
    assert _learned(_example(Row(text="abc"), plain), plain) == "<s>[a][b][c][<|im_end|>]"
    assert _learned(_example(Row(text="abc"), chatml), chatml) == "a[b][c][<|im_end|>]"


def test_a_label_word_is_learned_behind_the_template(words: PreTrainedTokenizerFast) -> None:
    found = Row(text="the film was bad", label="0", place="f:1")
    example = _example(found, words, template="{text}: ")
    assert _learned(example, words) == "the film was bad:[ negative]"


def test_the_prompt_of_a_conversation_asks_for_its_last_answer(
    chatml: PreTrainedTokenizerFast, plain: PreTrainedTokenizerFast
) -> None:
    talk = _talk("hi", "yo", "so", "well é", "unanswered", system="S")
    example = _example(talk, chatml)
    asked = "user\nso<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.decode(example.ids[: example.prompt]).endswith(asked)
    assert chatml.decode(example.ids[example.prompt :]) == "well é<|im_end|>\n"
    assert example.answer == "well é"
    example = _example(_talk("hi", "yo"), plain)
    assert plain.decode(example.ids[: example.prompt]) == "<s>user: hi\nassistant:"
    assert example.answer == "yo"


def test_the_prompt_of_a_completion_and_of_a_label(
    plain: PreTrainedTokenizerFast, words: PreTrainedTokenizerFast
) -> None:
    example = _example(Row(prompt="1+1=", completion="2!"), plain)
    assert (plain.decode(example.ids[: example.prompt]), example.answer) == ("<s>1+1=", "2!")
    example = _example(Row(prompt="the film ", completion="was good"), words)
    assert words.decode(example.ids[: example.prompt]) == "the film"  # " was" is one token
    example = _example(Row(text="fine", label="1", place="f:1"), plain)
    assert plain.decode(example.ids[: example.prompt]) == "<s>Review: fine\nIt is"
    assert (plain.decode(example.ids[example.prompt :]), example.answer) == (
        " positive",
        "positive",
    )
    example = _example(Row(text="abc"), plain)
    assert (example.prompt, example.answer) == (0, "")


@pytest.mark.parametrize("max_length", range(2, 16))
def test_the_prompt_counts_the_tokens_that_are_kept(
    plain: PreTrainedTokenizerFast, max_length: int
) -> None:
    example = _example(Row(prompt="abcdefgh", completion="123"), plain, max_length=max_length)
    first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
    assert example.prompt == first
    assert plain.decode(example.ids[first]) == "1"
    assert example.answer == "123"


def test_an_answer_that_is_cut_away_is_not_asked_for(chatml: PreTrainedTokenizerFast) -> None:
    talk = _talk("hi", "yo", "so", "on")
    whole = _example(talk, chatml)
    second = whole.prompt
    for max_length in range(second - 5, len(whole)):
        example = _example(talk, chatml, max_length=max_length)
        kept = len(example.ids)
        asked = chatml.decode(example.ids[: example.prompt])
        assert asked.endswith("<|im_start|>assistant\n")
        answer = chatml.decode(example.ids[example.prompt : kept])
        assert answer.startswith(example.answer[: len(answer)])
        assert example.answer == ("on" if "so" in asked else "yo")
    short = _example(talk, chatml, max_length=30)
    assert short.answer == "on", "the last answer is what is learned"


def test_a_template_that_rewrites_earlier_turns_asks_for_the_last(
    chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        chatml,
        "chat_template",
        "{% for m in messages %}{{ m.role }}>"
        "{% if m.role == 'assistant' and loop.last %}?{% endif %}"
        "{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant>{% endif %}",
    )
    example = _example(_talk("a", "b", "c", "d"), chatml)
    asked = chatml.decode(example.ids[: example.prompt])
    assert (asked, example.answer) == ("user>a;assistant>b;user>c;assistant>", "d")


@pytest.mark.parametrize(
    ("found", "columns"),
    [
        (Row(prompt="a", chosen="b", rejected="c", place="f:4"), "{completion: chosen}"),
        (Row(chosen="b", rejected="c", place="f:4"), "{text: chosen}"),
        (
            Row(messages=_talk("a", "b").messages[:1], chosen="b", rejected="c", place="f:4"),
            "{completion: chosen}",
        ),
    ],
)
@pytest.mark.parametrize("example_kind", ["tokens", "label_words"])
def test_preferences_are_refused(
    plain: PreTrainedTokenizerFast, found: Row, columns: str, example_kind: str
) -> None:
    with pytest.raises(UserError, match=f"f:4 holds a preference .* data.columns: {columns}"):
        _example(found, plain, example_kind)


def test_choices_follow_the_given_order(plain: PreTrainedTokenizerFast) -> None:
    found = Row(text="fine", label="1", place="f:1")
    example = _example(found, plain, "label_words", labels={"1": "ja", "0": "no"})
    assert plain.decode(example.ids) == "<s>Review: fine\nIt is"
    assert [plain.decode(choice) for choice in example.choices] == [" ja", " no"]
    assert example.choice == 0
    assert set(example.labels) == {IGNORED} and len(example.labels) == len(example.ids)


def test_without_labels_the_sorted_values_are_the_words(plain: PreTrainedTokenizerFast) -> None:
    rows = [Row(text="a", label="no"), Row(text="b", label="ja"), Row(text="c", label="no")]
    examples = render(rows, plain, "label_words", {}, TEMPLATE, 100)
    assert [example.choice for example in examples] == [1, 0, 1]
    assert label_words(rows, {}) == {"ja": "ja", "no": "no"}
    assert list(label_words(rows, {"no": "x", "ja": "y"})) == ["no", "ja"]


def test_rows_of_several_kinds_keep_their_order(plain: PreTrainedTokenizerFast) -> None:
    rows = [
        Row(text="a"),
        Row(text="b", label="1"),
        Row(prompt="c", completion="d"),
        _talk("e", "f"),
    ]
    shown = [plain.decode(e.ids)[3:] for e in render(rows, plain, "tokens", WORDS, "{text}", 99)]
    assert [text[0] for text in shown] == ["a", "b", "c", "u"]
    assert render([], plain, "tokens", WORDS, TEMPLATE, 9) == []


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (99, "<s>abcdefgh[1][2][3][<|im_end|>]"),
        (13, "<s>abcdefgh[1][2][3][<|im_end|>]"),
        (12, "<s>bcdefgh[1][2][3][<|im_end|>]"),
        (8, "<s>fgh[1][2][3][<|im_end|>]"),
        (7, "<s>gh[1][2][3][<|im_end|>]"),
        (6, "<s>gh[1][2][3]"),  # half of it stays for the prompt
        (2, "<s>[1]"),
    ],
)
def test_a_prompt_is_cut_from_its_left(
    plain: PreTrainedTokenizerFast, max_length: int, expected: str
) -> None:
    found = Row(prompt="abcdefgh", completion="123")
    assert _learned(_example(found, plain, max_length=max_length), plain) == expected


def test_a_question_is_cut_from_its_left(chatml: PreTrainedTokenizerFast) -> None:
    example = _example(_talk("question", "ok"), chatml, max_length=25)
    assert _learned(example, chatml) == (
        "<|im_start|>user\non<|im_end|>\n<|im_start|>assistant\n[o][k][<|im_end|>]\n"
    )
    with pytest.raises(UserError, match="f:1: with max_length 15 nothing is left to learn"):
        _example(_talk("question", "ok"), chatml, max_length=15)


def test_a_text_is_cut_from_its_end(plain: PreTrainedTokenizerFast) -> None:
    assert _learned(_example(Row(text="abcdef"), plain, max_length=4), plain) == "<s>[a][b][c]"


@pytest.mark.parametrize("found", [Row(text="abc", place="f:9"), _talk("a", "b")])
def test_an_example_that_would_teach_nothing(plain: PreTrainedTokenizerFast, found: Row) -> None:
    with pytest.raises(UserError, match=r"f:\d: with max_length 1 nothing is left to learn"):
        _example(found, plain, max_length=1)


@pytest.mark.parametrize("example_kind", ["tokens", "label_words"])
def test_only_the_text_is_cut_in_a_template(
    plain: PreTrainedTokenizerFast, example_kind: str
) -> None:
    found = Row(text="abcdef", label="1", place="f:1")
    example = _example(found, plain, example_kind, template="<{text}>", max_length=15)
    asked = plain.decode(example.ids).removesuffix(" positive")
    assert asked == "<s><abc>"  # 6 tokens and 9 of the longest word
    assert len(example) == (15 if example_kind == "tokens" else 6)


def test_a_text_is_cut_by_words(words: PreTrainedTokenizerFast) -> None:
    found = Row(text="the film was good and bad", label="1", place="f:1")
    example = _example(found, words, "label_words", template="film: {text} or", max_length=9)
    assert words.decode(example.ids) == "film: the film was or"


@pytest.mark.parametrize(("max_length", "missing"), [(10, 3), (12, 1)])
def test_a_template_without_room_for_text(
    plain: PreTrainedTokenizerFast, max_length: int, missing: int
) -> None:
    found = Row(text="abcdef", label="1", place="f:4")
    with pytest.raises(UserError, match=f"f:4: .* no room .* raise max_length by {missing} "):
        _example(found, plain, "label_words", template="<{text}>", max_length=max_length)
    example = _example(found, plain, "label_words", template="<{text}>", max_length=13)
    assert plain.decode(example.ids) == "<s><a>"


@pytest.mark.parametrize(
    "template", ["no text", "{text} {text}", "{text} {source!r}", "{} {text}", "{text", "{text.x}"]
)
def test_a_template_holds_the_text_once(plain: PreTrainedTokenizerFast, template: str) -> None:
    with pytest.raises(UserError, match=r"the template is .* exactly once"):
        _example(Row(text="a", label="1"), plain, template=template)


def test_braces_in_a_template_and_in_a_text(plain: PreTrainedTokenizerFast) -> None:
    example = _example(Row(text="{x}", label="1"), plain, "label_words", template="{{{text}}}")
    assert plain.decode(example.ids) == "<s>{{x}}"


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"0": "no", "1": "no"}, "'no' and 'no' cannot be told apart: .* the same tokens as"),
        ({"0": "10", "1": "1"}, "'1' and '10' cannot be told apart: .* tokens that begin the"),
        ({"0": "no", "2": "ja"}, "f:3: the label '1' is not one of '0', '2'; add it to `labels`"),
        ({"1": "ja"}, "chooses between labels, but there is only '1'"),
    ],
)
def test_labels_that_cannot_work(
    plain: PreTrainedTokenizerFast, labels: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        _example(Row(text="a", label="1", place="f:3"), plain, "label_words", labels=labels)


def test_choices_need_labelled_rows(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="classify needs text and label, but f:1 has messages; use"):
        _example(_talk("a", "b"), plain, "label_words")


def test_an_unknown_kind_is_a_defect(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"rows become tokens, .*, class_labels, tags"):
        _example(Row(text="a"), plain, "images")


def test_show_tells_what_is_learned(
    plain: PreTrainedTokenizerFast, words: PreTrainedTokenizerFast
) -> None:
    found = Row(prompt="1+1=", completion="2")
    assert show(_example(found, plain), plain) == [("<s>1+1=", False), ("2<|im_end|>", True)]
    labelled = Row(text="film", label="1")
    example = _example(labelled, words, "label_words", template="{text}:")
    assert show(example, words) == [("film:", False), (" positive", True)]
