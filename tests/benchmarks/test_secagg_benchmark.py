"""The benchmark of secure sums: federations without a model, and the tables of its results."""

from pathlib import Path
from typing import Any

import secagg_costs
import secagg_deployed
import secagg_repeated
import secagg_tables
from secagg_costs import Federation

from hanse.experiment.loading import load
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import read_rounds

STEPS = ["keys", "shares", "train", "survivors", "unmask"]


def _rows() -> dict[str, Any]:
    return {
        "mean": secagg_costs.measure(Federation(4, 2, 8, "plain"), 2),
        "secagg": secagg_costs.measure(Federation(4, 2, 8, "complete"), 2),
    }


def test_bytes_and_cpu_seconds_are_those_of_a_silo_and_round() -> None:
    rows = _rows()
    assert [*rows["mean"]["bytes"]] == ["train"]
    assert rows["mean"]["cpu_seconds"]["protocol"] == 0
    masked = rows["secagg"]
    assert [*masked["bytes"]] == STEPS == [*masked["cpu_seconds"]["protocol_by_kind"]]
    assert 64 < masked["bytes"]["train"]["up"] < 2_000  # 16 numbers, one silo, one round
    assert 0 < masked["cpu_seconds"]["protocol"] < masked["cpu_seconds"]["answers"] < 1
    assert masked["threshold"] == 3 == masked["neighbours"]
    more = secagg_costs.measure(Federation(8, 2, 8, "complete"), 2)
    for way in ("down", "up"):  # three others, and seven
        assert 1.5 < more["bytes"]["shares"][way] / masked["bytes"]["shares"][way] < 7 / 3


def test_a_run_is_repeated_by_the_clients_that_were_counted(
    experiment_file: Path, tmp_path: Path
) -> None:
    words = ["num_clients=4", "rounds=2", "clients_per_pass=off", "aggregator=secagg"]
    settings = load(experiment_file, words).resolved()
    counted = {1: ("silo-1", "silo-3", "silo-4"), 2: ("silo-1", "silo-2", "silo-3", "silo-4")}
    found = secagg_repeated.repeat(settings, tmp_path / "repeated", counted)
    records = read_rounds(tmp_path / "repeated")
    assert {record.round: record.clients for record in records if record.round} == counted
    for number in counted:
        assert 0 < found[number]["difference"] <= 1.01 * found[number]["rounding"]
        assert found[number]["rounding"] < 1e-6 < found[number]["largest_number"]


def test_an_exchange_lasts_from_its_first_request_to_its_last_reply() -> None:
    rows = [
        ClientRecord(number, name, kind, sent_at=at, answered_at=at + seconds)
        for number, at in ((2, 10.0), (3, 30.0))
        for kind, name, seconds in (("keys", "a", 2.0), ("keys", "b", 4.0), ("train", "a", number))
    ]
    rows.append(ClientRecord(3, "b", "train", sent_at=30.0))  # killed
    assert secagg_deployed.exchanges(rows) == {"keys": 4.0, "train": 2.5}


def _killed() -> dict[str, Any]:
    row = {"round": 1, "killed": 2, "step": "train", "paused": False, "counted": 9}
    row |= {"difference": 1e-9, "rounding": 2e-9, "seconds": 9.0, "largest_number": 0.1}
    return {"silos": 11, "threshold": 7, "killed": 2, "rounds": [row], "same": True}


def test_tables_show_the_parts_that_are_measured() -> None:
    rows = _rows()
    flower = {"silos": 4, "rounds": 7, "seconds_a_round": 5.0, "seconds_by_exchange": {"train": 5}}
    standing = {"accuracy": 0.8, "seeds": [0.8], "test_items": 1000}
    quality = {"experiment": "a.yaml", "mean": standing, "secagg": standing, "step": 1e-8}
    quality |= {"clipped": 0, "changed": 2, "ahead": {"by_item": [0.0, -0.01, 0.01]}}
    result = {
        "costs": rows,
        "graphs": {"4, mean": rows["mean"], "4, secagg": rows["secagg"]},
        "flower": dict.fromkeys(secagg_tables.EXCHANGES, flower),
        "killed": _killed(),
        "quality": {
            **quality,
            "clipped": 0,
            "changed": 2,
            "ahead": {"by_item": [0.0, -0.01, 0.01]},
        },
    }
    lines = secagg_tables.secagg(result)
    tables = "\n".join(lines).split("\n\n")
    for table in tables:
        cells = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(cells) <= 1, table
    assert sum(table.startswith("|") for table in tables) == 4
    assert any(line.startswith("| 2 | after its shares were sent") for line in lines)
    assert "80.0 % by secagg, a difference of +0.00 points (-1.00 to +1.00" in lines[-1]
    alike = {**quality, "changed": 0, "ahead": {"by_item": None}}
    assert "+0.00 points (no interval); 0 answers" in secagg_tables.secagg({"quality": alike})[-1]
    assert secagg_tables.secagg({"costs": rows}) == lines[: len(tables[0].splitlines()) + 2]
