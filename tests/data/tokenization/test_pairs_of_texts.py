"""Pairs of texts: both are read, by a template over their columns or as two segments."""

import copy
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from hanse.data.example import Lost
from hanse.data.formats.row import Row, reading, row
from hanse.data.holdout import without
from hanse.data.tokenization.prompt_template import parse
from hanse.data.tokenization.render import render
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.source_rows import digest

TEMPLATE = "{premise} So {hypothesis}\nLabel:"
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
WORDS = {"0": "yes", "1": "no"}


def _nli(premise: str = "It is red.", hypothesis: str = "It is blue.", **more: Any) -> Row:
    return row({"premise": premise, "hypothesis": hypothesis, "label": 1, **more}, "f:1")


@pytest.mark.parametrize(
    ("first", "second", "label"),
    [
        ("premise", "hypothesis", "label"),
        ("sentence1", "sentence2", "gold_label"),
        ("question1", "question2", "is_duplicate"),
        ("Text A", "Text B", "Label"),
        ("question", "passage", "label"),
    ],
)
def test_pairs_are_found_by_their_columns(first: str, second: str, label: str) -> None:
    found = row({first: "a", second: "b", label: 1}, "f:1")
    assert (found.text, found.text_pair, found.label, found.kind) == ("a", "b", "1", "labelled")
    assert found.reading is not None and found.reading.unread == ()


def test_a_pair_without_a_label_is_named() -> None:
    with pytest.raises(
        UserError, match=r"'premise' and 'hypothesis' are a pair .*\{label: grade\}"
    ):
        row({"premise": "a", "hypothesis": "b", "grade": "x"}, "f:1")
    named = row({"premise": "a", "hypothesis": "b", "grade": "x"}, "f:1", {"label": "grade"})
    assert (named.text, named.text_pair, named.label) == ("a", "b", "x")


@pytest.mark.parametrize(
    ("record", "format_"),
    [
        ({"messages": TALK, "text1": "a", "text2": "b", "rating": 1}, "messages"),
        (
            {"chosen": "a", "rejected": "b", "question": "c", "sentence": "d", "class": 1},
            "preference",
        ),
        ({"prompt": "a", "completion": "b", "claim": "c", "evidence": "d", "label": 1}, "complet"),
        (
            {"tokens": ["a"], "ner_tags": ["O"], "premise": "b", "hypothesis": "c", "label": 1},
            "tag",
        ),
        ({"text": "a", "label": 1, "question": "b", "passage": "c"}, "labelled"),
        ({"question": "a", "passage": "b", "category": 1}, "pair"),
        ({"text": "a", "premise": "b", "hypothesis": "c", "gold_label": 1}, "pair"),
        ({"sentence1": "a", "sentence2": "b", "label": 1, "summary": "c", "text": "d"}, "labelled"),
        ({"premise": "a", "hypothesis": "b", "label": 1, "body": "c", "answer": "d"}, "pair"),
    ],
)
def test_a_pair_beside_another_format(record: dict[str, Any], format_: str) -> None:
    assert reading(record).format.startswith(format_)


def test_a_pair_beside_a_question_and_its_answer_is_uncertain() -> None:
    record = {"question": "a", "passage": "b", "answer": "c", "category": "d"}
    with pytest.raises(UserError, match=r"read as instruction \+ output .* or text \+ label"):
        reading(record)


def test_columns_that_are_named_decide() -> None:
    record = {"premise": "a", "hypothesis": "b", "x": "c", "label": 1}
    assert row(record, "f:1", {"text": "premise"}).text_pair == ""
    named = row(record, "f:1", {"text": "x", "text_pair": "premise"})
    assert (named.text, named.text_pair) == ("c", "a")


def test_a_template_has_both_texts(chatml: PreTrainedTokenizerFast) -> None:
    for template in (TEMPLATE, "{text} So {text_pair}\nLabel:"):
        [example] = render([_nli()], chatml, "label_words", WORDS, template, 100)
        assert chatml.decode(example.ids) == "It is red. So It is blue.\nLabel:"


def test_a_template_may_name_any_column(chatml: PreTrainedTokenizerFast) -> None:
    found = row({"text": "Good.", "label": 1, "shop": "Kiel"}, "f:1")
    [example] = render([found], chatml, "label_words", WORDS, "{shop}: {text} =", 100)
    assert chatml.decode(example.ids) == "Kiel: Good. ="


def test_the_longest_text_is_cut(chatml: PreTrainedTokenizerFast) -> None:
    rows = [_nli("abc", "d" * 90), _nli("a" * 90, "bcd")]
    first, second = render(rows, chatml, "label_words", WORDS, TEMPLATE, 40)
    assert chatml.decode(first.ids).startswith("abc So dddd") and first.lost == Lost.TEXT
    assert chatml.decode(second.ids).endswith("aaa So bcd\nLabel:") and second.lost == Lost.TEXT
    assert len(first) == len(second) == 36  # and four for the longest label


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{text}\nLabel:", r"f:1 has two texts, 'premise' and 'hypothesis', .*data\.template: "),
        ("{premis} {hypothesis}", r"names the column 'premis' \(did you mean 'premise'\?\), which"),
        ("{a}", "names the column 'a', which the row does not have; it has 'premise', 'hypothes"),
        ("{premise} {premise}", "once each"),
        ("{premise} {hypothesis} {label}", "f:1: data.template names the label 'label', which the"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    chatml: PreTrainedTokenizerFast, template: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        render([_nli()], chatml, "label_words", WORDS, template, 100)


def test_a_template_cannot_name_the_label(chatml: PreTrainedTokenizerFast) -> None:
    found = row({"review": "Good.", "stars": 5, "shop": "Kiel"}, "f:1")
    for name in ("label", "stars"):
        with pytest.raises(UserError, match=rf"names the label '{name}', .*\"\{{review\}}\\nLabel"):
            render([found], chatml, "label_words", {"5": "5", "1": "1"}, f"{{text}} {{{name}}}", 99)
    with pytest.raises(UserError, match=r"'star', which .*; it has 'review', 'shop'\.$"):
        render([found], chatml, "label_words", {"5": "5", "1": "1"}, "{text} {star}", 99)


def test_both_texts_are_cut_if_one_is_not_enough(chatml: PreTrainedTokenizerFast) -> None:
    pairs = [("x" * 60, "y" * 60), ("x" * 60, "y" * 20), ("x" * 60, "y"), ("x", "y" * 60)]
    rows = [_nli(*pair) for pair in pairs]
    examples = render(rows, chatml, "label_words", WORDS, TEMPLATE, 48)
    texts = [chatml.decode(example.ids) for example in examples]
    assert [(text.count("x"), text.count("y")) for text in texts] == [
        *((17, 16), (17, 16), (32, 1), (1, 32))
    ]
    assert {(len(example), example.lost) for example in examples} == {(44, Lost.TEXT)}
    [shortest] = render([_nli("xxx", "yyy")], chatml, "label_words", WORDS, TEMPLATE, 17)
    assert chatml.decode(shortest.ids) == "x So y\nLabel:"
    with pytest.raises(UserError, match="no room for the text; raise max_length by 1 or more"):
        render([_nli("xxx", "yyy")], chatml, "label_words", WORDS, TEMPLATE, 16)


def test_a_single_text_is_encoded_alone_beside_pairs(chatml: PreTrainedTokenizerFast) -> None:
    chatml = copy.deepcopy(chatml)
    chatml.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    single = row({"text": "It is red.", "label": 1}, "f:2")
    for rows in ([single], [_nli(), single], [single, _nli()]):
        examples = render(rows, chatml, "class_labels", WORDS, "{text}", 100)
        assert examples[rows.index(single)].ids.count(2) == 1
        assert examples[rows.index(single)].lost == Lost.NOTHING
        [cut] = render([*rows, single], chatml, "class_labels", WORDS, "{text}", 5)[-1:]
        assert (len(cut), cut.lost) == (5, Lost.TEXT)


def test_an_encoder_reads_both_texts(chatml: PreTrainedTokenizerFast) -> None:
    first, second = render(
        [_nli(), _nli(hypothesis="It is green.")], chatml, "class_labels", WORDS, "{text}", 100
    )
    assert list(first.ids) == chatml("It is red.", "It is blue.")["input_ids"]
    assert first.ids != second.ids
    [cut] = render([_nli("a" * 30, "bc")], chatml, "class_labels", WORDS, "{text}", 10)
    assert (chatml.decode(cut.ids), cut.lost) == ("a" * 8 + "bc", Lost.TEXT)


def test_pairs_with_one_text_in_common_are_different_rows() -> None:
    first, second = _nli(), _nli(hypothesis="It is green.")
    assert without([first], [second]) == [first] and digest([first]) != digest([second])


def test_a_space_at_the_end_belongs_to_the_answer() -> None:
    assert parse("{text} = ").fill(Row(text="a ")) == ("", "a ", " =")
