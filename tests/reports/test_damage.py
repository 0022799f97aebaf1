"""A report of a run that is not whole shows what there is, says what is missing, never fails."""

import json
import random
from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from folders import divided, finished
from hanse.errors import UserError
from hanse.reports.run.page import write_report
from reports.test_run_page import words

FILES = [
    "metrics.jsonl",
    "ledger.jsonl",
    "division.json",
    "machine.json",
    "scores/test-classification-00000.json",
    "scores/test-classification-00002.json",
]


@pytest.fixture(autouse=True)
def unprinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is painted, but not printed, which takes most of the time."""

    def save(figure: Figure, file: BytesIO, **_: object) -> None:
        assert figure.axes
        file.write(b"<svg></svg>")

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = finished(tmp_path / "run", [0.0, 1.0, 0.0], [1.0, 1.0, 0.0])
    divided(run, {"a": {"x": 3}, "b": {"y": 4}}, ["x", "y"])
    (run / "machine.json").write_text(json.dumps({"peak_flops": 1e12, "data": "ab"}))
    return run


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    text = words(write_report(run))
    shown = Path(name).name.replace("classification", "…")  # the task is not known any more
    assert f"{shown} is not there" in text
    assert "trial" in text and "Run it again" in text


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_is_named(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    for length in range(0, len(content), max(1, len(content) // 7)):
        (run / name).write_bytes(content[:length])
        text = words(write_report(run))
        whole = name.endswith(".jsonl") and content[:length].endswith(b"\n")
        assert (f"{Path(name).name}" in text) or whole or length == 0


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"3", b'{"round": 1}', b"\xff\xfe", b"[" * 9999]
)
def test_a_file_of_something_else_is_named(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content + b"\n")
    text = words(write_report(run))
    assert Path(name).name in text or name == "machine.json"  # an empty machine.json says nothing


def test_half_a_line_is_left_out(run: Path) -> None:
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole[:-20])
    text = words(write_report(run))
    assert "metrics.jsonl: 1 of its lines cannot be read" in text
    assert "round 1 of 2 is done" in text


def test_lines_with_other_values_are_left_out(run: Path) -> None:
    """Values of any line are exchanged for others, at random."""
    draw = random.Random(0)
    values = [None, "x", -1, 1e400, [], {}, {"a": "b"}, [[1]], True]
    for name in ("metrics.jsonl", "ledger.jsonl"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        for _ in range(25):
            line = draw.choice(lines)
            changed = line | {draw.choice([*line]): draw.choice(values)}
            text = "".join(json.dumps(changed if row is line else row) + "\n" for row in lines)
            if '"round": Infinity' in text:
                continue
            (run / name).write_text(text)
            assert "trial" in words(write_report(run))


@pytest.mark.parametrize(
    "settings", ["{}", "rounds: many", "model: small", "model: {}", "algorithm: 3", "name: [1]"]
)
def test_settings_that_are_not_whole(run: Path, settings: str) -> None:
    (run / "experiment.yaml").write_text(settings)
    assert "Accuracy on 3 held-out examples" in words(write_report(run))


def test_without_an_experiment_there_is_nothing_to_tell(run: Path) -> None:
    (run / "experiment.yaml").unlink()
    with pytest.raises(UserError, match=r"experiment\.yaml cannot be read"):
        write_report(run)
