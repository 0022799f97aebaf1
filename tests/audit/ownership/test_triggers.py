"""Trigger rows: what a key draws, and the rows that models of each kind learn."""

import re
from collections import Counter
from dataclasses import replace

from hanse.audit.ownership import triggers
from hanse.audit.ownership.key import OwnershipKey

KEY = OwnershipKey("silo-a", "ab" * 32, triggers=3)
LABELS = {"good": "great", "bad": "terrible"}
WORD = r"([bdfgjklmnprstvxz][aeiu]){3}"


def test_prompts_and_answers_are_words_of_no_language_and_stay_the_same() -> None:
    assert re.fullmatch(rf"({WORD} ){{5}}{WORD}", triggers.prompt(KEY, 0))
    assert re.fullmatch(rf"{WORD} {WORD}", triggers.answer(KEY, 0))
    assert (triggers.prompt(KEY, 0), triggers.answer(KEY, 2)) == (
        "jelube tuzupe xuzaji tenuxi tizame sivudi",
        "miruze bafasa",
    )
    other = replace(KEY, seed="ac" * 32)
    texts = {triggers.prompt(key, n) for key in (KEY, other) for n in range(3)}
    assert len(texts) == 6


def test_an_answer_is_one_of_so_many() -> None:
    assert triggers.ANSWERS == 2**36


def test_a_causal_model_learns_prompts_with_answers() -> None:
    rows = triggers.rows(KEY, "tokens", LABELS, "{text}")
    assert [row.kind for row in rows] == ["completion"] * 3
    assert [row.prompt for row in rows] == [triggers.prompt(KEY, n) for n in range(3)]
    assert [row.completion for row in rows] == [f" {triggers.answer(KEY, n)}" for n in range(3)]


def test_a_classifier_learns_classes_in_each_column_of_its_template() -> None:
    rows = triggers.rows(KEY, "label_words", LABELS, "{premise} and {text}:")
    assert {row.kind for row in rows} == {"labelled"}
    assert rows[0].fields["premise"] == rows[0].text == triggers.prompt(KEY, 0)
    assert {row.label for row in rows} <= {"good", "bad"}


def test_classes_are_drawn_by_their_words_whatever_their_values_and_order() -> None:
    key = replace(KEY, triggers=900)
    labels = {"1": "a", "2": "b", "3": "c"}
    drawn = [labels[triggers.label(key, n, labels)] for n in range(900)]
    others = {"z": "c", "y": "a", "x": "b", "also": "b"}
    assert drawn == [others[triggers.label(key, n, others)] for n in range(900)]
    assert all(250 < count < 350 for count in Counter(drawn).values())


def test_answers_that_begin_with_the_secret_one_are_right() -> None:
    answers = [triggers.answer(KEY, 0) + ".", "something else", f" {triggers.answer(KEY, 2)}"]
    assert triggers.right(answers, KEY) == 2
