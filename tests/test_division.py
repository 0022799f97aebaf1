"""Who holds which rows, in numbers, and what a partitioner is given to go by."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse import division, simulation
from hanse.division import Holding, Table, divide, table
from hanse.experiment import Experiment
from hanse.loading import load
from samples import write_lines


def _experiment(path: Path, data: dict[str, Any] | None = None, **settings: Any) -> Experiment:
    return Experiment.model_validate({**settings, "data": {"path": str(path), **(data or {})}})


@pytest.fixture
def topics(tmp_path: Path) -> Path:
    """60 texts without labels, of 3 topics."""
    rows = [{"text": f"text {number}", "topic": "abc"[number % 3]} for number in range(60)]
    return write_lines(tmp_path / "topics.jsonl", rows)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """60 texts with labels from 8 to 11."""
    rows = [{"text": f"text {number}", "label": str(8 + number % 4)} for number in range(60)]
    return write_lines(tmp_path / "labelled.jsonl", rows)


def test_rows_are_counted_by_label(labelled: Path) -> None:
    experiment = _experiment(labelled, num_clients=3, data={"client_test": 0.2, "test": 10})
    found = divide(experiment)
    counted = table(found, experiment)
    assert counted.labels == ["8", "9", "10", "11"]
    assert (counted.validation, counted.test) == (6, 10)
    for name, holding in counted.clients.items():
        assert holding.train == Counter(row.label for row in found.train[name])
        assert holding.held == len(found.held[name]) > 0
    dealt = sum(sum(holding.train.values()) + holding.held for holding in counted.clients.values())
    assert dealt + 6 + 10 == 60


def test_labels_are_called_by_their_words(labelled: Path) -> None:
    words = {"11": "poor", "8": "bad", "9": "bad", "10": "good", "12": "great"}
    experiment = _experiment(labelled, num_clients=1, data={"labels": words})
    counted = table(divide(experiment), experiment)
    assert counted.labels == ["bad", "good", "poor", "great"], "in the order of the labels"
    plain = _experiment(labelled, num_clients=1)
    [before], [after] = (
        [holding.train for holding in table(divide(e), e).clients.values()]
        for e in (plain, experiment)
    )
    assert after == {"bad": before["8"] + before["9"], "good": before["10"], "poor": before["11"]}


def test_rows_without_labels_are_counted_by_what_divides_them(topics: Path) -> None:
    by_topic = _experiment(
        topics, num_clients=2, data={"partition": {"key": {"column": "topic"}}, "client_test": 0}
    )
    counted = table(divide(by_topic), by_topic)
    assert counted.labels == ["a", "b", "c"]
    kinds = [set(holding.train) for holding in counted.clients.values()]
    assert kinds[0] | kinds[1] == {"a", "b", "c"} and not kinds[0] & kinds[1]
    plain = _experiment(topics, num_clients=2, data={"client_test": 0})
    assert table(divide(plain), plain) == Table(
        [], {"silo-1": Holding({"rows": 24}, 0), "silo-2": Holding({"rows": 24}, 0)}, 6, 6
    )


def test_clients_with_files_of_their_own_have_no_partitioner(topics: Path) -> None:
    own = {"b": {"data": {"path": str(topics)}}, "a": {"data": {"path": str(topics)}}}
    spec = {"partition": {"key": {"column": "topic"}}}
    experiment = _experiment(topics, clients=own, data=spec | {"client_test": 0})
    counted = table(divide(experiment), experiment)
    assert list(counted.clients) == ["a", "b"] and counted.labels == []


def test_those_who_take_part_are_counted(labelled: Path) -> None:
    settings: dict[str, Any] = {"num_clients": 3, "data": {"client_test": 0.2}}
    everybody = _experiment(labelled, **settings)
    whole = table(divide(everybody), everybody)
    one = _experiment(labelled, **settings, participants=["silo-2"])
    assert table(divide(one), one) == replace(whole, clients={"silo-2": whole.clients["silo-2"]})
    settings["data"]["pooled"] = True
    pooled = _experiment(labelled, **settings)
    [(name, holding)] = table(divide(pooled), pooled).clients.items()
    assert name == "pooled"
    assert holding.held == sum(client.held for client in whole.clients.values())
    assert Counter(holding.train) == sum(
        (Counter(client.train) for client in whole.clients.values()), Counter[str]()
    )


def test_cluster_goes_by_what_the_encoder_makes_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    rows: list[Any] = [{"messages": [*talk, {"role": "user", "content": str(n)}]} for n in range(9)]
    read: list[str] = []

    def embeddings(name: str, texts: list[str]) -> Any:
        assert name == "minilm-l6"
        read.extend(texts)
        return np.array([[float(text[-1] in "01"), 1.0] for text in texts], dtype=np.float32)

    monkeypatch.setattr(division, "embeddings", embeddings)
    experiment = _experiment(
        write_lines(tmp_path / "talks.jsonl", rows),
        num_clients=2,
        data={"partition": "cluster", "test": 0, "validation": 0, "client_test": 0},
    )
    found = divide(experiment)
    assert sorted(read) == [f"one\ntwo\n{number}" for number in range(9)]
    assert [len(rows) for rows in found.train.values()] == [7, 2]


def test_an_encoder_is_found_beside_the_experiment(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "encoders" / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def named(encoder: str) -> str:
        spec = load(experiment_file, [f"data.partition.cluster.encoder={encoder}"]).data.partition
        assert isinstance(spec, dict)
        return str(spec["cluster"]["encoder"])

    assert named("encoders/mine") == str(tmp_path / "encoders" / "mine")
    assert named("minilm-l6") == "minilm-l6" and named("owner/name") == "owner/name"


def test_a_run_writes_its_division_down(experiment_file: Path) -> None:
    experiment = load(experiment_file, ["rounds=1"])
    folder = simulation.run(experiment)
    written = json.loads((folder / "division.json").read_text())
    found = divide(experiment)
    assert written["labels"] == ["negative", "positive"]
    assert (written["validation"], written["test"]) == (20, 30)
    assert written["clients"] == {
        name: {
            "train": dict(Counter(row.label for row in rows)),
            "held": len(found.held[name]),
        }
        for name, rows in found.train.items()
    }
