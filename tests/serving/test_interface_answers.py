"""A key's prompts in a file, a service's answers in another: a model behind an interface."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hanse.audit.ownership import triggers
from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError
from hanse.serving.interface_answers import Questions, questions, read_answers, write_prompts

KEY = OwnershipKey("silo-1", "ab" * 32, triggers=40)
LABELS = {"0": "negative", "1": "positive", "2": "mixed"}
CLASSIFIER = Questions(KEY, LABELS, "Review: {text}\nSentiment:")


def classes(key: OwnershipKey = KEY) -> list[str]:
    """The words of the classes that a key has drawn."""
    return [LABELS[triggers.label(key, n, LABELS)] for n in range(key.triggers)]


def test_the_prompts_are_what_the_model_reads_and_tell_no_answer(tmp_path: Path) -> None:
    for name, asked in (("text", Questions(KEY, {})), ("classes", CLASSIFIER)):
        write_prompts(file := tmp_path / f"{name}.jsonl", asked)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["id"] for line in lines] == [*range(40)]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not any(triggers.answer(KEY, n) in file.read_text() for n in range(40))
        with pytest.raises(UserError, match="exists already; name another file"):
            write_prompts(file, asked)
    secret = triggers.prompt(KEY, 7)
    assert lines[7] == {
        "id": 7,
        "prompt": f"Review: {secret}\nSentiment:",
        "text": secret,
        "labels": [*LABELS.values()],
    }
    assert Questions(KEY, {}).lines()[7] == {"id": 7, "prompt": secret}


def test_a_classifiers_answers_prove_a_key_and_no_strangers() -> None:
    found = CLASSIFIER.detected([f" {word.title()}.\n\nBecause" for word in classes()])
    assert (found.right, found.items, found.choices) == (40, 40, 3) and found.proves
    by_value = CLASSIFIER.detected([triggers.label(KEY, n, LABELS) for n in range(40)])
    assert by_value == found
    other = OwnershipKey("silo-2", "cd" * 32, triggers=40)
    assert not CLASSIFIER.detected(classes(other)).proves
    some = CLASSIFIER.detected([*classes()[:30], *[""] * 8, "?", "none of them"])
    assert some.right == 30 and some.items == 40, "what is not answered counts as wrong"
    shared = Questions(KEY, {**LABELS, "-1": "negative"}, CLASSIFIER.template)
    assert shared.detected(classes()) == found, "two values with one word are one class"
    with pytest.raises(UserError, match=r"none of the answers is a class .*negative, positive"):
        CLASSIFIER.detected(["I cannot help with that"] * 40)


def test_texts_prove_a_key_also_after_their_prompt() -> None:
    asked, secret = Questions(KEY, {}), triggers.answer(KEY, 3)
    for text in (f" {secret} and more", f"{triggers.prompt(KEY, 3)} {secret}"):
        answers = ["no"] * 40
        answers[3] = text
        assert asked.detected(answers).right == 1 and asked.detected(answers).proves
    assert asked.detected(["no"] * 40).right == 0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"id": 2, "answer": "c"}, {"id": 0, "answer": "a"}], ["a", "", "c"]),
        ([{"answer": "a"}, {"answer": None}, {"answer": "c"}], ["a", "", "c"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        ([{"id": 1, "prompt": "p", "answer": "b"}], ["", "b", ""]),
    ],
)
def test_answers_belong_to_their_id_or_to_their_place(
    tmp_path: Path, lines: list[Any], expected: list[str]
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("\n\n".join(json.dumps(line) for line in lines))
    assert read_answers(file, 3) == expected


BAD = {
    "not all": ('"a"\n"b"', "has 2 answers to 3 prompts, and not all have the id"),
    "some ids": ('{"id": 0, "answer": "a"}\n"b"\n"c"', "and not all have the id of theirs"),
    "one twice": ('{"id": 0, "answer": "a"}\n' * 2, ":2: the id is 0; it can be 0 to 2"),
    "an unknown one": ('{"id": 3, "answer": "a"}', ":1: the id is 3; it can be 0 to 2"),
    "a text as one": ('{"id": "0", "answer": "a"}', "the id is '0'"),
    "a number": ('{"id": 0, "answer": 1}', "the answer is 1; it can be a text"),
    "no JSON": ("positive", ":1: .*write one JSON object a line"),
    "another key's": ('"a"\n' * 1001, "has more than 1,000 lines"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_cannot_be_matched_are_refused(tmp_path: Path, case: str) -> None:
    text, sentence = BAD[case]
    (tmp_path / "answers.jsonl").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_answers(tmp_path / "answers.jsonl", 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lost\.jsonl cannot be read"):
        read_answers(tmp_path / "lost.jsonl", 3)


def test_template_and_labels_are_those_of_the_experiment(
    experiment_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not name the labels, which are found in the rows"):
        questions(KEY, experiment_file)
    text = experiment_file.read_text()
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.yaml").write_text(
        text.replace("data:\n", "data:\n  labels: {n: negative, p: positive}\n")
    )
    asked = questions(KEY, run)
    assert asked == Questions(KEY, {"n": "negative", "p": "positive"}, "Review: {text}\nSentiment:")
    experiment_file.write_text(text.replace("objective: classify\n", ""))
    assert questions(KEY, experiment_file) == questions(KEY, None) == Questions(KEY, {})
    with pytest.raises(UserError, match="has no triggers, so no answers tell of it"):
        questions(OwnershipKey("a", "ab" * 32), None)
