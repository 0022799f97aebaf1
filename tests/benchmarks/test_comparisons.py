"""The comparisons on a tiny model: base, all rows in one place, both intervals, and going on."""

import shutil
from pathlib import Path
from typing import Any

import adapters
import algorithm_ways
import comparison
import many_runs
import protocol
import pytest
import quality_tables
import rates
import wire
from many_runs import Task
from rates import Choice

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners.training import loop
from hanse.simulation import run as simulation

WORDS = ("rounds=2", "train.max_steps=3")


def _compare(part: Any, names: list[str], home: Path, words: tuple[str, ...] = WORDS) -> Any:
    return part.compare(names, part.Runs(home, words), seeds=(1, 2), deals=(101,), workers=0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, experiment_file: Path) -> Path:
    """The tiny experiment, and a search of one rate."""

    def search(around: float, scored: Any) -> Choice:
        return Choice(0.03, True, {0.03: scored([0.03])[0]})

    for part in (comparison, adapters, wire):
        monkeypatch.setattr(part, "EXPERIMENT", experiment_file)
    monkeypatch.setattr("rates.search", search)
    return experiment_file


def test_a_comparison_has_base_and_centralised_rows(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "runs"
    content = _compare(comparison, ["centralised"], home)
    for deal, ways in content["deals"].items():
        assert list(ways) == ["base", "fedavg", "centralised"], content["validated"]
        assert not [row for row in ways.values() if "no_result" in row], content["validated"]
        untrained = simulation.run(load(quick, [*WORDS, f"output_dir={tmp_path / deal}"]))
        first = [*run_folder.read_evaluation(untrained, "test-classification", 0).items]
        assert ways["base"]["seeds"][0]["items"] == "".join(f"{item:.0f}" for item in first)
        row = ways["centralised"]
        both = [
            w["seeds"][0]["accuracy"] - w["seeds"][1]["accuracy"] for w in (row, ways["fedavg"])
        ]
        wide = row["ahead_by_seed"][2] - row["ahead_by_seed"][0]
        assert wide == pytest.approx(12.7062 * abs(both[0] - both[1]) / 2, abs=1e-3)
        assert (row["up_bytes"], ways["fedavg"]["up_bytes"] > 0) == (None, True)
    assert content["rounds"].keys() == {"fedavg"}

    def forbidden(task: Task) -> Any:
        raise AssertionError(f"{task.folder} is done again")

    shutil.rmtree(home)
    monkeypatch.setattr(many_runs, "_work", forbidden)
    assert _compare(comparison, ["centralised"], home)["deals"] == content["deals"]


def test_adapters_have_base_and_every_kind(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "SILOS", ("silo-1", "silo-2", "silo-3"))
    words = (*WORDS, "data.partition=iid")
    content = _compare(adapters, ["lora"], tmp_path / "runs", words)
    row = content["ways"]["lora"]
    assert content["base"]["test_items"] == 30
    for kind in ("alone", "centralised"):
        pairs = zip(row[kind]["seeds"], row["federated"]["seeds"], strict=True)
        gaps = [own - other for own, other in pairs]
        assert row[kind]["ahead_by_seed"][0] == pytest.approx(sum(gaps) / 2)
        assert row[kind]["ahead_of_federated"][0] == pytest.approx(sum(gaps) / 2)


def test_codecs_stand_beside_no_codec_the_base_and_all_rows_in_one_place(
    quick: Path, tmp_path: Path
) -> None:
    content = _compare(wire, ["centralised", "bf16"], tmp_path / "runs")
    rows = content["rows"]
    assert list(rows) == ["base", "centralised", "none", "bf16"]
    none, half = rows["none"], rows["bf16"]
    assert half["share"] == half["up_bytes"] / none["up_bytes"] and 0.5 < half["share"] < 0.9
    assert none["loss"] == {"2": pytest.approx(sum(r["losses"][1] for r in none["runs"]) / 2)}
    one_place = rows["centralised"]
    lead = one_place["accuracy"] - none["accuracy"]
    assert one_place["ahead_by_seed"][0] == pytest.approx(lead)
    assert quality_tables.wire(content)[2].startswith("| base | — |")


def test_bytes_are_counted_until_the_loss_is_as_low_as_that_of_no_codec(
    quick: Path, tmp_path: Path
) -> None:
    task = Task(tmp_path / "run", quick, WORDS)
    with many_runs.Workers(0) as workers:
        workers.finish([task])
    first, second = (record.validation["loss"] for record in wire.rounds(task))
    sent = [record.bytes.up for record in wire.rounds(task)]
    assert wire.outcome(task, first)["bytes_until"] == sent[0]
    assert wire.outcome(task, min(first, second) - 1)["bytes_until"] is None
    if second < first:
        assert wire.outcome(task, second)["bytes_until"] == sum(sent)


def test_in_one_place_there_are_as_many_updates_in_a_row_and_the_same_resets(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    fresh, step = loop._optimizer, loop.optimizer_state.step

    def begin(*words: Any) -> Any:
        made.append(0)
        return fresh(*words)

    def count(*words: Any) -> None:
        made[-1] += 1
        step(*words)

    monkeypatch.setattr(loop, "_optimizer", begin)
    monkeypatch.setattr(loop.optimizer_state, "step", count)
    words = ["clients_per_pass=off", f"output_dir={tmp_path / 'pooled'}", *protocol.pooled(3)]
    folder = simulation.run(load(quick, words))
    # 3 rounds of 3 steps, as a silo does them
    assert made == [3, 3, 3]
    ledger = run_folder.read_ledger(folder)
    assert [row.numbers["examples"] for row in ledger if row.kind == "train"] == [3 * 3 * 8] * 3


def test_a_run_that_diverges_does_not_end_the_others(quick: Path, tmp_path: Path) -> None:
    tasks = [
        Task(tmp_path / "bad", quick, (*WORDS, "train.learning_rate=1e30")),
        Task(tmp_path / "good", quick, WORDS),
    ]
    with many_runs.Workers(0) as workers:
        assert [task.finished for task in workers.each(tasks)] == [False, True]
        assert rates.validated(tasks[0], rates.Family(1e-3, ())) == rates.WORST


def test_settings_that_are_refused_are_no_finding(quick: Path, tmp_path: Path) -> None:
    words = ("algorithm=flora", "adapter={ia3: {}}")
    with many_runs.Workers(0) as workers, pytest.raises(UserError):
        workers.finish([Task(tmp_path / "bad", quick, words)])


def test_every_way_has_a_family_and_every_family_judges_of_its_own() -> None:
    for part in (algorithm_ways, adapters):
        assert {way.family for way in part.WAYS.values()} == part.FAMILIES.keys()
        for name, family in part.FAMILIES.items():
            assert {part.WAYS[judge].family for judge in family.judges} == {name}


@pytest.mark.parametrize("name", ["fednova", "feddyn", "scaffold"])
def test_what_follows_plain_gradients_has_plain_sgd(name: str) -> None:
    way = algorithm_ways.WAYS[name]
    assert way.family == "SGD"
    assert "train.optim=sgd" in way.settings


def test_a_part_is_found_by_its_name_or_by_its_ways() -> None:
    parts = {"a": ["one", "two"], "b": ["three"]}
    assert protocol.wanted(parts, []) == ["one", "two", "three"]
    assert protocol.wanted(parts, ["three", "a"]) == ["one", "two", "three"]
    assert protocol.wanted(parts, ["two"]) == ["two"]
    with pytest.raises(SystemExit, match="there are a, b, one, two, three"):
        protocol.wanted(parts, ["four"])
