"""Right and wrong answers by label, against counts by hand; texts only of the server's rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from folders import EVIL, finished
from hanse.reports.run.confusion import confusion
from hanse.reports.run.page import write_report
from hanse.reports.run.run_data import read
from reports.test_run_page import words

TRUTH, ANSWERS = [0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 1]


LABELS = {"best": "positive", "dull": "negative", "none": "neutral"}


def classified(
    home: Path, answers: list[int], labels: Mapping[str, str] = LABELS, **more: Any
) -> Path:
    """A run whose last test answered so."""
    right = [float(a == b) for a, b in zip(TRUTH, answers, strict=True)]
    run = finished(home, right, right, data={"labels": dict(labels)})
    file = run / "scores" / "test-classification-00002.json"
    content = json.loads(file.read_text()) | {"truth": TRUTH, "answers": answers}
    file.write_text(json.dumps(content | more))
    return run


def test_counts_by_true_label_and_answer(tmp_path: Path) -> None:
    found = confusion(read(classified(tmp_path / "run", ANSWERS)))
    assert found is not None
    assert found.counts == ((1, 2, 0), (1, 1, 0), (0, 1, 0))
    assert found.common == (("best", "dull", 2), ("dull", "best", 1), ("none", "dull", 1))
    good, bad, none = found.classes
    assert (good.name, good.rows, good.answered, good.right) == ("best", 3, 2, 1)
    assert (good.precision, good.recall) == (1 / 2, pytest.approx(1 / 3))
    assert good.f1 == pytest.approx(2 / 5)
    assert (bad.precision, bad.recall) == (1 / 4, 1 / 2)
    assert (none.precision, none.recall, none.f1) == (None, 0.0, 0.0)
    assert none.interval == "0.0\N{NO-BREAK SPACE}% to 79.3\N{NO-BREAK SPACE}%"  # z²/(1 + z²)


def test_the_page_shows_the_matrix_and_wrong_rows_escaped(tmp_path: Path) -> None:
    wrong = [{"place": 1, "text": f"a film {EVIL}"}, {"place": 99, "text": "lost"}]
    file = write_report(classified(tmp_path / "run", ANSWERS, wrong=wrong))
    text = words(file)
    assert "Most often wrong: best answered as dull (2), dull answered as best (1)" in text
    assert "best 3 2 1 50.0 % 33.3 % 6.1 % to 79.2 % 40.0 %" in text
    assert "test row 2 a film" in text and "the data best the model dull" in text
    assert "lost" not in text and "<script" not in file.read_text()


@pytest.mark.parametrize("count", [40, 41])
def test_more_labels_than_a_page_can_show_have_no_matrix(count: int, tmp_path: Path) -> None:
    labels = {f"label {number}": f"word {number}" for number in range(count)}
    file = write_report(classified(tmp_path / "run", ANSWERS, labels))
    found = confusion(read(tmp_path / "run"))
    assert found is not None and len(found.classes) == count
    assert found.common[0] == ("label 0", "label 1", 2)
    assert len(found.counts) == (40 if count == 40 else 0)
    assert ("41 labels are more than a page can show" in words(file)) == (count == 41)
    assert ("Confusion matrix" in file.read_text()) == (count == 40)


def test_earlier_runs_have_no_matrix(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [1.0, 0.0], [1.0, 1.0])
    assert confusion(read(run)) is None
    assert "Right and wrong by label" not in words(write_report(run))
