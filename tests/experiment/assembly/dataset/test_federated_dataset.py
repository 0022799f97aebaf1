"""Who holds which rows, in numbers, and what a partitioner is given to go by."""

import html
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.data.formats.row import Row
from hanse.errors import UserError
from hanse.experiment.assembly.dataset import federated_dataset
from hanse.experiment.assembly.dataset.federated_dataset import (
    UNSEEN,
    FederatedDataset,
    divide,
    table,
    unseen,
)
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.journal.records import ClientRowCounts, DivisionRecord
from hanse.reports.run.page import write_report
from hanse.simulation import run as simulation
from samples import reviews, write_lines

_ASKED = {"user": "prompt", "assistant": "completion"}
_ONE = {"a": [{"text": "one"}, {"text": "two"}], "b": [{"text": "one"}]}


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
    assert counted.labels == ("8", "9", "10", "11")
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
    assert counted.labels == ("bad", "good", "poor", "great"), "in the order of the labels"
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
    assert counted.labels == ("a", "b", "c") and not counted.remarks
    kinds = [set(holding.train) for holding in counted.clients.values()]
    assert kinds[0] | kinds[1] == {"a", "b", "c"} and not kinds[0] & kinds[1]
    plain = _experiment(topics, num_clients=2, data={"client_test": 0})
    counted = table(divide(plain), plain)
    assert replace(counted, remarks=()) == DivisionRecord(
        (),
        {"silo-1": ClientRowCounts({"rows": 24}, 0), "silo-2": ClientRowCounts({"rows": 24}, 0)},
        6,
        6,
    )
    [remark] = counted.remarks
    assert f"{topics}: not used: topic (topic has 3 values; data.columns: {{text:" in remark


def test_columns_that_a_setting_uses_are_used(topics: Path) -> None:
    filtered = {"filter": {"topic": "a"}, "client_test": 0}
    assert not divide(_experiment(topics, num_clients=2, data=filtered)).remarks
    spec = {"dirichlet": {"alpha": 9.0, "partition_by": "topic"}}
    dealt = {"partition": spec, "client_test": 0}
    assert not divide(_experiment(topics, num_clients=2, data=dealt)).remarks


def test_sources_with_the_same_unused_columns_are_named_in_one_sentence(
    topics: Path, tmp_path: Path
) -> None:
    other = write_lines(tmp_path / "more.jsonl", [{"text": f"w {n}", "id": n} for n in range(9)])
    own = {
        "a": {"data": {"path": str(topics)}},
        "b": {"data": {"path": str(shutil.copy(topics, tmp_path / "same.jsonl"))}},
        "c": {"data": {"path": str(other)}},
        "d": {"data": {"path": str(topics), "filter": {"topic": "a"}}},
    }
    settings = {"test": 0, "validation": 0, "client_test": 0, "public": str(other)}
    remarks = divide(_experiment(topics, clients=own, data=settings)).remarks
    shown = [remark.partition(" (")[0] for remark in remarks if "not used" in remark]
    assert shown == [
        f"{topics} and 1 more: not used: topic",
        f"{other}: not used: id",
    ]


def test_clients_with_files_of_their_own_have_no_partitioner(topics: Path) -> None:
    own = {"b": {"data": {"path": str(topics)}}, "a": {"data": {"path": str(topics)}}}
    spec = {"partition": {"key": {"column": "topic"}}}
    experiment = _experiment(topics, clients=own, data=spec | {"client_test": 0})
    counted = table(divide(experiment), experiment)
    assert list(counted.clients) == ["a", "b"] and counted.labels == ()


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


def _same(row: Row) -> str:
    """What makes two of these tests' rows one, written apart from the package."""
    read = row.prompt or row.text or "".join(m["content"] for m in row.messages[:-1])
    return "".join(read.lower().split())


def _copies(texts: int) -> list[dict[str, str]]:
    """Every text four times, in other letters, with other spaces, and with another label."""
    rows = [
        {"text": f"This is text {number}", "label": "01"[number % 2]} for number in range(texts)
    ]
    upper = [{"text": row["text"].upper(), "label": "1"} for row in rows]
    return rows + upper + [{**row, "text": f" {row['text']}\n"} for row in rows] + rows


def _never_both(found: FederatedDataset) -> None:
    """No row that anybody holds out is a training row, or held out for anything else."""
    trained = {_same(row) for rows in found.train.values() for row in rows}
    held = {_same(row) for rows in found.held.values() for row in rows}
    parts = [trained, held, set(map(_same, found.validation)), set(map(_same, found.test))]
    assert all(parts)
    for a, b in combinations(parts, 2):
        assert not a & b


def test_what_anybody_holds_out_is_nobodys_training_row(tmp_path: Path) -> None:
    rows = _copies(60)
    path = write_lines(tmp_path / "copies.jsonl", rows)
    experiment = _experiment(path, num_clients=4, data={"client_test": 0.2})
    found = divide(experiment)
    _never_both(found)
    assert found == divide(experiment)
    server = 240 - 4 * (len(found.test) + len(found.validation))
    left = server - sum(len(found.train[name]) + len(found.held[name]) for name in found.train)
    said = [f"{3 * 12} rows are left out of training", f"{left} rows are left out of training"]
    assert len(found.remarks) == 2
    assert all(sentence in remark for sentence, remark in zip(said, found.remarks, strict=True))
    for settings in ({"participants": ["silo-2"]}, {"data": {"pooled": True}}):
        data = {"client_test": 0.2, **settings.pop("data", {})}
        variant = _experiment(path, num_clients=4, data=data, **settings)
        assert divide(variant) == found, "each variant of a baseline comparison has the same rows"


def test_the_same_prompt_with_other_answers_is_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n % 40}?", "completion": f" {n}."} for n in range(200)]
    path = write_lines(tmp_path / "asked.jsonl", rows)
    _never_both(divide(_experiment(path, num_clients=4, data={"client_test": 0.2})))
    talks = [
        {"messages": [{"role": r, "content": row[p]} for r, p in _ASKED.items()]} for row in rows
    ]
    path = write_lines(tmp_path / "talks.jsonl", talks)
    _never_both(divide(_experiment(path, num_clients=4, data={"client_test": 0.2})))


@pytest.mark.parametrize("held", [{"test": 0.1, "validation": 6}, {"test": 0, "validation": 0}])
def test_files_of_clients_that_repeat_each_other(tmp_path: Path, held: dict[str, Any]) -> None:
    rows = _copies(40)
    own = {}
    for number, name in enumerate("abc"):
        path = write_lines(tmp_path / f"{name}.jsonl", rows[10 * number : 10 * number + 60])
        own[name] = {"data": {"path": str(path)}}
    found = divide(_experiment(path, clients=own, data={"client_test": 0.2, **held}))
    if held["test"]:
        _never_both(found)
    trained = {_same(row) for rows in found.train.values() for row in rows}
    assert not trained & {_same(row) for rows in found.held.values() for row in rows}
    assert "that clients hold out (data.client_test)" in found.remarks[-1]


def test_rows_that_do_not_repeat_are_all_there(topics: Path) -> None:
    found = divide(_experiment(topics, num_clients=3))
    both = (*found.train.values(), *found.held.values(), found.validation, found.test)
    assert sum(map(len, both)) == 60
    assert not [remark for remark in found.remarks if "left out" in remark]


def test_a_client_with_nothing_but_what_others_hold_out(tmp_path: Path) -> None:
    files = {name: write_lines(tmp_path / f"{name}.jsonl", rows) for name, rows in _ONE.items()}
    own = {name: {"data": {"path": str(path)}} for name, path in files.items()}
    settings = {"client_test": 0.5, "test": 0, "validation": 0}
    said = "every training row of b is held out by another client, too"
    with pytest.raises(UserError, match=said):
        for seed in range(9):
            divide(_experiment(files["a"], clients=own, data=settings, seed=seed))


def test_what_is_left_out_is_said(
    tmp_path: Path,
    experiment_file: Path,
    hanse: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [*reviews(60), *reviews(60)]
    path = write_lines(tmp_path / "twice.jsonl", rows)
    words = [f"data.path={path}", "data.partition=iid", "data.test=5", "rounds=1"]
    experiment = load(experiment_file, words)
    said = divide(experiment).remarks
    assert said
    shown = " ".join(hanse("check", experiment_file, *words).out.split())
    with caplog.at_level(logging.WARNING):
        folder = simulation.run(experiment)
    page = write_report(folder).read_text()
    for remark in said:
        assert remark in shown and remark in caplog.text
        assert html.escape(f"{remark[0].upper()}{remark[1:]}") in page


def test_what_nobody_can_see_is_said(topics: Path) -> None:
    own = {name: {"data": {"path": str(topics)}} for name in "ab"}
    assert unseen(_experiment(topics, clients=own)) == (UNSEEN,)
    assert unseen(_experiment(topics, clients=own, data={"client_test": 0})) == ()
    assert unseen(_experiment(topics)) == ()
    elsewhere = FederatedDataset([], [], {}, {}, {}, "", (UNSEEN,))
    assert table(elsewhere, _experiment(topics, clients=own)) == DivisionRecord(
        (), {}, 0, 0, (UNSEEN,)
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

    monkeypatch.setattr(federated_dataset, "embeddings", embeddings)
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
