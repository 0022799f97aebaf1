"""The benchmark of plans on a tiny job: equal simulated time, and when a row is as good."""

from pathlib import Path

import planned
import pytest
import step_prediction

from hanse.data.example import Example
from hanse.planning.fedpipe import step_probes

FIGURES = "memory_gb: 64, mfu: 0.5, operator_us: 20"
TINY = ("rounds=2", "train.max_steps=2", "data.test=20", "data.validation=20", "data.client_test=0")


@pytest.fixture
def runs(tmp_path: Path, experiment_file: Path, monkeypatch: pytest.MonkeyPatch) -> planned.Runs:
    lines = experiment_file.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("output_dir", "clients_per"))]
    devices = f"devices: {{fast: {{fp32_tflops: 0.004, {FIGURES}}}, "
    devices += f"slow: {{fp32_tflops: 0.001, {FIGURES}}}}}"
    clients = "clients: {silo-1: {device: fast}, silo-2: {device: slow}}"
    file = tmp_path / "planned.yaml"
    file.write_text("\n".join([*kept, "clients_per_pass: off", devices, clients, ""]))
    monkeypatch.setattr(planned, "EXPERIMENT", file)
    monkeypatch.setattr(step_probes, "MOST_PROBES", 5)
    return planned.Runs(tmp_path / "runs", TINY)


def test_all_rows_end_within_the_time_of_the_uniform_run(runs: planned.Runs) -> None:
    content = planned.compare(planned.NAMES, runs, seeds=(1,), deals=(101,), workers=0)
    rows = content["rows"]
    assert [*rows] == [*planned.NAMES]
    limit = content["plans"]["1"]["limit"]
    assert rows[planned.UNIFORM]["runs"][0]["seconds"][-1] == pytest.approx(limit)
    for name in (planned.HELD, planned.PLANNED, planned.GROWING):
        seconds = rows[name]["runs"][0]["seconds"]
        assert len(seconds) == 1 or seconds[-1] <= limit * 1.001, name
    assert rows[planned.PLANNED]["rounds"] >= 2 * rows[planned.UNIFORM]["rounds"]
    assert rows[planned.UNIFORM]["until"] != [None] and "ahead" in rows[planned.PLANNED]
    assert planned.compare(planned.NAMES, runs, (1,), (101,), workers=0)["rows"] == rows


def test_a_row_is_as_good_at_the_first_round_that_reaches_the_uniform_ones_end() -> None:
    plain = {"seconds": [10.0, 20.0], "validation": [0.5, 0.6], "items": "01"}
    fast = {"seconds": [4.0, 8.0, 12.0], "validation": [0.4, 0.6, 0.5], "items": "11"}
    slow = {"seconds": [19.0], "validation": [0.59], "items": "00"}
    without = {"seconds": None, "validation": [0.9], "items": "01"}
    lines = {
        planned.UNIFORM: {"runs": [plain]},
        planned.PLANNED: {"runs": [fast]},
        planned.HELD: {"runs": [slow]},
        planned.BASE: {"runs": [without]},
    }
    planned.beside(lines)
    assert lines[planned.PLANNED]["until"] == [pytest.approx(0.4)]
    found = {name: row["until"] for name, row in lines.items()}
    assert found[planned.UNIFORM] == [1.0]
    assert found[planned.HELD] == found[planned.BASE] == [None]


def test_unseen_settings_are_drawn_again_by_their_seed() -> None:
    rows = [Example((1,) * length, (1,) * length) for length in (3, 5, 9)]
    first, again, other = (list(step_prediction.drawn(rows, 6, seed)) for seed in (1, 1, 2))
    assert first == again != other and len(first) == step_prediction.UNSEEN
    assert {setting.length for setting in first} <= {3, 5, 9}


def test_errors_are_relative_and_memory_is_a_ratio() -> None:
    steps = [
        {"seconds": 1.0, "predicted_seconds": 1.1, "memory": 10.0, "predicted_memory": 12.0},
        {"seconds": 2.0, "predicted_seconds": 1.4, "memory": 20.0, "predicted_memory": 19.0},
        {"seconds": 4.0, "predicted_seconds": 4.0, "memory": None, "predicted_memory": 1.0},
    ]
    found = step_prediction.summary(steps)
    assert found["error"] == pytest.approx((0.1 + 0.3) / 3)
    assert found["largest_error"] == pytest.approx(0.3) and found["order"] == pytest.approx(1.0)
    assert (found["least_memory"], found["largest_memory"]) == (0.95, 1.2)
