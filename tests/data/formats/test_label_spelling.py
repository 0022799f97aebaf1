"""Labels that differ only in case or blanks are said, with the silos that have them."""

from pathlib import Path

import pytest

from hanse.data.formats.label_spelling import remarks
from hanse.data.formats.row import Row, row
from hanse.data.tokenization.label_words import refuse_unknown
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.schema import Experiment
from samples import write_lines


def _rows(*labels: str) -> list[Row]:
    return [row({"text": "a", "label": label}, f"f:{at}") for at, label in enumerate(labels)]


@pytest.mark.parametrize(
    "pair",
    [
        *[
            ("Positive", "positive"),
            ("POS", "pos"),
            ("very good", "Very  Good"),
            ("Straße", "STRASSE"),
        ],
        *[("not_spam", "not spam"), ("not-spam", "NotSpam"), ("É", "é"), ("True", "true")],
        *[("card\u00a0lost", "card lost"), ("Да", "да")],
    ],
)
def test_spellings_of_one_label(pair: tuple[str, str]) -> None:
    [remark] = remarks(_rows(*pair, "other", pair[0]))
    first, second = (f"{label!r}" for label in pair)
    assert f"different labels: {first} (2) and {second} (1); if they mean the same" in remark


@pytest.mark.parametrize("labels", [("a", "b"), ("1", "-1"), ("+", "-"), ("-", "_"), ("0", "00")])
def test_different_labels(labels: tuple[str, str]) -> None:
    assert remarks(_rows(*labels)) == []


def test_only_labels_that_are_learned_count() -> None:
    asked = [row({"question": "a", "answer": "b", "label": x}, "f:1") for x in ("A", "a")]
    assert remarks(asked) == []
    tagged = [row({"words": ["x", "y", "z"], "tags": ["B-PER", "b-per", "O"]}, "f:1")]
    assert "'B-PER' (1) and 'b-per' (1)" in remarks(tagged)[0]


def test_silos_that_spell_differently(tmp_path: Path) -> None:
    labels = {"north": ["good", "bad"], "south": ["Good", "Bad"], "west": ["good", "Bad"]}
    clients = {}
    for name, pair in labels.items():
        file = tmp_path / f"{name}.jsonl"
        write_lines(file, [{"text": f"{name} {n}", "label": pair[n % 2]} for n in range(20)])
        clients[name] = {"data": {"path": str(file)}}
    data = {"test": 0, "validation": 0, "client_test": 0}
    found = divide(Experiment.model_validate({"clients": clients, "data": data}))
    [remark] = found.remarks
    assert "'good' (20 at north and 1 more) and 'Good' (10 at south)" in remark
    assert "'bad' (10 at north) and 'Bad' (20 at south and 1 more)" in remark


def test_a_label_in_another_spelling_than_the_experiment() -> None:
    with pytest.raises(
        UserError, match=r"'Good' is not one of 'good', 'bad' \(did you mean 'good'"
    ):
        refuse_unknown(_rows("Good"), {"good": "good", "bad": "bad"})
