"""Which output of a classifier is which label."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.assembly.assemble import simulate
from hanse.journal import run_folder
from hanse.learners.injection.adapter_files import labels as read_labels
from hanse.learners.models.label_outputs import listed, ordered
from hanse.serving.chat import open_talk
from hanse.serving.evaluate import compare
from hanse.serving.trained_adapter import find
from hanse.simulation import run as simulation


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


@pytest.mark.parametrize(
    ("labels", "known", "wanted"),
    [
        (same("negative", "positive"), same("positive", "negative"), ["positive", "negative"]),
        (same("negative", "positive"), same("POSITIVE", "NEGATIVE"), ["positive", "negative"]),
        ({"0": "bad", "1": "good"}, same("good", "bad"), ["1", "0"]),
        (same("good", "bad"), {"1": "good", "0": "bad"}, ["good", "bad"]),
        (same("1", "0"), {"1": "good", "0": "bad"}, ["1", "0"]),
        (same("0", "1", "10", "2"), {}, None),
        (
            same("10", *"0123456789"),
            same(*(f"LABEL_{n}" for n in range(11))),
            [*"0123456789", "10"],
        ),
        (same("a", "b"), same("b", "c", "a"), ["b", "c", "a"]),
        (same("1", "2"), same("LABEL_0", "LABEL_1", "LABEL_2"), None),
        (same("spam", "ham"), same("positive", "negative"), None),
        (same("spam", "positive"), same("positive", "negative"), None),
        (same("a", "A"), same("A", "a"), ["A", "a"]),
        (same("a", "A"), same("a", "b"), None),
    ],
)
def test_labels_are_in_the_order_of_outputs(
    labels: dict[str, str], known: dict[str, str], wanted: list[str] | None
) -> None:
    found = ordered(labels, known)
    assert (None if found is None else list(found)) == wanted
    assert found is None or labels.items() <= found.items()


def test_many_are_cut() -> None:
    assert listed(same("no", "yes")) == "0 no, 1 yes"
    assert listed(same(*map(str, range(20)))).endswith("11 11 and 8 more")


TEXTS = {"good": "great lovely bright", "bad": "dull awful flat", "so": "film actor plot"}


def _rows(labels: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"text": f"{TEXTS[label]} {number}", "label": label}
        for number in range(40)
        for label in labels
    ]


def _classifier(folder: Path, to: Path, order: Sequence[str], words: bool = False) -> Path:
    """A classifier that is right on all rows, whose outputs are named in this order."""
    places = {name: at for at, name in enumerate(order)}
    named = {"id2label": dict(enumerate(order)), "label2id": places}
    auto = AutoModelForTokenClassification if words else AutoModelForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    model = auto.from_pretrained(folder, **named)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
        for name in order:
            read = tokenizer([f"{TEXTS[name]} {n}" for n in range(0, 40, 7)], padding=True)
            ids = torch.tensor(read["input_ids"])
            labels = torch.full(ids.shape if words else ids.shape[:1], places[name])
            mask = torch.tensor(read["attention_mask"])
            optimizer.zero_grad()
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
    model.eval().save_pretrained(to)
    tokenizer.save_pretrained(to)
    return to


def _experiment(
    model: Path, folder: Path, rows: list[dict[str, Any]], objective: str = "classify"
) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "e.yaml"
    file.write_text(
        f"rounds: 1\nnum_clients: 2\nmodel: {{model_name_or_path: {model}, bf16: false}}\n"
        f"data: {{path: {data}, test: 20, validation: 10, partition: iid}}\n"
        f"objective: {objective}\noutput_dir: {folder / 'run'}\n"
        "adapter: {lora: {r: 2, target_modules: [query]}}\n"
        "train: {learning_rate: 1.0e-6, max_steps: 1}\n"
    )
    return file


def _before(folder: Path, task: str = "classification") -> float:
    found = run_folder.read_evaluation(folder, f"test-{task}", 0)
    accuracy: float = found.metrics["accuracy"]
    return accuracy


@pytest.mark.parametrize("order", [("good", "bad", "so"), ("so", "good", "bad")])
@pytest.mark.parametrize("own", [("bad", "good", "so"), ("bad", "good")])
def test_a_classifier_is_scored_as_right_as_it_is(
    order: tuple[str, ...], own: tuple[str, ...], tiny_bert: Path, tmp_path: Path
) -> None:
    model = _classifier(tiny_bert, tmp_path / "model", order)
    file = _experiment(model, tmp_path, _rows(own))
    folder = simulation.run(loading.load(file))
    assert _before(folder) == 1.0
    known = read_labels(folder / "adapter")
    assert list(known) == [*order]
    told = json.loads((folder / "adapter" / "labels.json").read_text())
    assert told["id2label"] == {str(at): name for at, name in enumerate(order)}
    card = (folder / "adapter" / "README.md").read_text()
    assert all(f"| {at} | {name} |" in card for at, name in enumerate(order))
    assert f"id2label={dict(enumerate(order))!r}" in card
    compared = compare(folder)["classification"]
    assert compared.base.metrics["accuracy"] == compared.adapted.metrics["accuracy"] == 1.0
    # Whoever names the labels again, in whatever order, is understood.
    words = "data.labels={so: so, bad: bad, good: good}"
    assert compare(folder, overrides=[words])["classification"].adapted.metrics["accuracy"] == 1.0


def test_words_are_tagged_as_rightly(tiny_bert: Path, tmp_path: Path) -> None:
    order = ("so", "good", "bad")
    model = _classifier(tiny_bert, tmp_path / "model", order, words=True)
    rows = [
        {"words": row["text"].split(), "tags": [row["label"]] * len(row["text"].split())}
        for row in _rows(order)
    ]
    folder = simulation.run(loading.load(_experiment(model, tmp_path, rows, "tag")))
    assert _before(folder, "tagging") > 0.95
    assert list(read_labels(folder / "adapter")) == [*order]


def test_an_adapter_is_talked_with_and_gone_on_from_by_its_labels(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """The base model has no names for them here, so the adapter alone knows."""
    file = _experiment(tiny_bert, tmp_path, _rows(("bad", "good")))
    learnt = ["train.learning_rate=0.01", "train.max_steps=40"]
    first = ["data.labels={good: fine, bad: poor}"]
    folder = simulation.run(loading.load(file, [*learnt, *first]))
    assert read_labels(folder / "adapter") == {"good": "fine", "bad": "poor"}
    alone = tmp_path / "adapter"
    shutil.copytree(folder / "adapter", alone)
    for place, words in ((folder, []), (alone, [f"model.model_name_or_path={tiny_bert}"])):
        talk = open_talk(place, words)
        assert talk.choose(TEXTS["good"])[0][0] == "fine"
        assert talk.choose(TEXTS["bad"])[0][0] == "poor"
    words = ["adapter.lora=null", f"adapter.from={alone}", f"output_dir={tmp_path / 'on'}"]
    on = simulation.run(loading.load(file, words))  # whose labels would be sorted: bad, good
    assert _before(on) == 1.0
    assert list(read_labels(on / "adapter")) == ["good", "bad"]
    rows = [
        {**row, "label": {"bad": "ham", "good": "spam"}[row["label"]]}
        for row in _rows(("bad", "good"))
    ]
    other = _experiment(tiny_bert, tmp_path, rows)
    with pytest.raises(UserError, match=r"chooses between fine, poor, but the data have ham, spam"):
        simulation.run(loading.load(other, [*words, f"output_dir={tmp_path / 'other'}"]))


def test_a_folder_that_does_not_say_is_asked_for(tiny_bert: Path, tmp_path: Path) -> None:
    file = _experiment(tiny_bert, tmp_path, _rows(("bad", "good")))
    folder = simulation.run(loading.load(file)) / "adapter"
    (folder / "labels.json").unlink()
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    base = [f"model.model_name_or_path={tiny_bert}"]
    with pytest.raises(UserError, match="names the labels of its outputs; name them all"):
        find(alone, base)
    named = find(alone, [*base, "data.labels={bad: bad, good: good}"])
    assert list(named.experiment.data.labels) == ["bad", "good"]
    (alone / "labels.json").write_text("[]")
    with pytest.raises(UserError, match=r"labels.json does not name the labels"):
        find(alone, base)


def test_a_head_for_other_labels(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many: it is said whose place they take; more or fewer: the head is replaced."""
    model = _classifier(tiny_bert, tmp_path / "model", ("good", "bad"))
    rows = [{"text": f"x {n}", "label": ("spam", "ham", "egg")[n % 3]} for n in range(90)]
    file = _experiment(model, tmp_path, rows)
    dataset = simulate(loading.load(file)).dataset
    assert list(dataset.labels) == ["egg", "ham", "spam"]
    assert [remark for remark in dataset.remarks if "its head" in remark] == [
        f"{model} chooses between 0 good, 1 bad, but the data have 3 labels, 0 egg, 1 ham, 2 spam: "
        "its head is replaced by a new one, which begins untrained; data.labels can give labels of "
        "the data the names of its outputs."
    ]
    file = _experiment(model, tmp_path, [row for row in rows if row["label"] != "egg"])
    with caplog.at_level(logging.INFO):
        simulate(loading.load(file))
    assert f"outputs  0 ham, 1 spam: {model} calls them otherwise, 0 good, 1 bad" in caplog.text
    file = _experiment(tiny_bert, tmp_path, rows)
    with caplog.at_level(logging.INFO):
        simulate(loading.load(file))
    assert "outputs  0 egg, 1 ham, 2 spam, in a head that is new" in caplog.text


@pytest.mark.parametrize("words", [False, True])
def test_a_head_of_another_size_is_replaced_and_learns(
    words: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    model = _classifier(tiny_bert, tmp_path / "model", ("good", "bad"), words)
    rows: list[dict[str, Any]] = _rows(("bad", "good", "so"))
    if words:
        rows = [{"tokens": [row["text"].split()[0]], "tags": [row["label"]]} for row in rows]
        rows = [
            {**row, "tokens": [*row["tokens"], str(n)], "tags": row["tags"] * 2}
            for n, row in enumerate(rows)
        ]
    file = _experiment(model, tmp_path, rows, "tag" if words else "classify")
    learnt = ["train.learning_rate=0.01", "train.max_steps=40"]
    folder = simulation.run(loading.load(file, learnt))
    assert list(read_labels(folder / "adapter")) == ["bad", "good", "so"]
    (task,) = compare(folder).values()
    assert task.adapted.metrics["accuracy"] > 0.9 > task.base.metrics["accuracy"]
    card = (folder / "adapter" / "README.md").read_text()
    assert "ignore_mismatched_sizes=True" in card


def test_a_run_that_was_begun_keeps_its_order(tiny_bert: Path, tmp_path: Path) -> None:
    """A run of an earlier version has trained its head in the order that it has written down."""
    model = _classifier(tiny_bert, tmp_path / "model", ("good", "bad"))
    file = _experiment(model, tmp_path, _rows(("bad", "good")))
    written = "data.labels={bad: bad, good: good}"
    begun = simulate(loading.load(file, [written]), begun=True)
    assert list(begun.experiment.data.labels) == ["bad", "good"]
    assert list(simulate(loading.load(file, [written])).experiment.data.labels) == ["good", "bad"]
