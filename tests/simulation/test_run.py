"""A whole run on the tiny model: what it leaves, resume, overrides, parts from outside."""

import hashlib
import json
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.planning.preview.estimate import preview
from hanse.serving import evaluate
from hanse.simulation import run as simulation
from samples import ROOT, reviews, write_lines
from stopping import ctrl_c


def _digest(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()


def _run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, words))


def test_a_run_leaves_what_it_promises(experiment_file: Path) -> None:
    folder = _run(experiment_file)
    left = {path.name for path in folder.iterdir()}
    assert left >= {"experiment.yaml", "metrics.jsonl", "ledger.jsonl", "report.html", "adapter"}
    adapter = {path.name for path in (folder / "adapter").iterdir()}
    assert adapter >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert adapter >= {"tokenizer.json", "tokenizer_config.json"}
    rounds = run_folder.read_rounds(folder)
    assert [record.round for record in rounds] == [0, 1, 2, 3]
    assert rounds[3].test["accuracy"] > rounds[0].test["accuracy"]
    assert rounds[3].client_test.keys() == {"silo-1", "silo-2", "silo-3"}
    wanted = load(experiment_file).resolved()
    wanted["data"]["labels"] = {"negative": "negative", "positive": "positive"}  # found by looking
    assert load(folder / "experiment.yaml").resolved() == wanted


def test_same_seed_same_adapter_other_seed_other_adapter(
    experiment_file: Path, tmp_path: Path
) -> None:
    first = _run(experiment_file)
    again = _run(experiment_file, f"output_dir={tmp_path / 'again'}")
    other = _run(experiment_file, f"output_dir={tmp_path / 'other'}", "seed=1")
    assert _digest(first) == _digest(again) != _digest(other)


@pytest.mark.parametrize(("presses", "saved"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("algorithm", ["fedavg", "fedopt"])
def test_a_stopped_run_ends_as_if_it_never_had_been(
    experiment_file: Path, tmp_path: Path, presses: int, saved: int, algorithm: str
) -> None:
    words = [f"algorithm={algorithm}", "train.optimizer_state=keep", "fraction_train=0.67"]
    whole = _run(experiment_file, *words)
    stopped = tmp_path / "stopped"
    with ctrl_c("round 2: ", presses), pytest.raises(UserError, match=f"after round {saved} was"):
        _run(experiment_file, *words, f"output_dir={stopped}")
    assert [r.round for r in run_folder.read_rounds(stopped)] == list(range(saved + 1))
    assert _digest(simulation.resume(stopped)) == _digest(whole)
    assert len(run_folder.read_rounds(stopped)) == 4


def test_a_stopped_run_over_links_has_the_same_late_clients(
    experiment_file: Path, tmp_path: Path
) -> None:
    words = ["links={up_mbps: [1, 1, 0.1], loss: 0.2, latency_ms: 5, seconds_per_step: 0.25}"]
    words += ["deployment.quorum=1", "evaluation.clients=false", "deployment.deadline=1.3"]
    whole, stopped = _run(experiment_file, *words), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        _run(experiment_file, *words, f"output_dir={stopped}")
    assert _digest(simulation.resume(stopped)) == _digest(whole)
    rounds, again = (run_folder.read_rounds(folder) for folder in (whole, stopped))
    facts = [[(r.clients, r.simulated_seconds, r.bytes) for r in rows] for rows in (rounds, again)]
    assert facts[0] == facts[1]
    assert [len(r.clients) for r in rounds[1:]] == [3, 2, 2]
    journeys = [
        [(r.client, r.late, r.simulated) for r in run_folder.read_ledger(folder)]
        for folder in (whole, stopped)
    ]
    assert journeys[0] == journeys[1]


def test_what_is_computed_again_after_a_stop_is_the_same(
    experiment_file: Path, tmp_path: Path
) -> None:
    """What frozen layers made of a row is lost, and computed beside other rows than before."""
    words = ["adapter.lora.layers_to_transform=[1]", "rounds=5"]
    words += ["train.max_steps=6", "train.per_device_train_batch_size=2"]
    whole, stopped = _run(experiment_file, *words), tmp_path / "stopped"
    with ctrl_c("round 4: ", 2), pytest.raises(UserError, match="after round 3 was"):
        _run(experiment_file, *words, f"output_dir={stopped}")
    assert _digest(simulation.resume(stopped)) == _digest(whole)


def test_resume_of_a_finished_run_writes_the_same_again(experiment_file: Path) -> None:
    folder = _run(experiment_file)
    before = _digest(folder)
    (folder / "report.html").unlink()
    assert _digest(simulation.resume(folder)) == before
    assert (folder / "report.html").exists()


def test_rounds_may_be_fractions_of_epochs(experiment_file: Path) -> None:
    folder = _run(experiment_file, "train.max_steps=null", "train.num_train_epochs=0.5")
    rows = [row for row in run_folder.read_ledger(folder) if row.kind == "train"]
    by_client = {row.client: row.weight for row in rows}
    assert len(set(by_client.values())) > 1, "silos of different sizes do different work"


def test_one_client_may_have_its_own_training(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    experiment_file.write_text(text + "clients: {silo-2: {train: {max_steps: 1}}}\n")
    folder = _run(experiment_file, "rounds=1")
    rows = [row for row in run_folder.read_ledger(folder) if row.kind == "train"]
    assert {row.client: row.numbers["steps"] for row in rows} == {
        "silo-1": 3,
        "silo-2": 1,
        "silo-3": 3,
    }


def test_a_client_with_another_rank_is_refused_before_training(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    experiment_file.write_text(text + "clients: {silo-2: {adapter: {lora: {r: 2}}}}\n")
    with pytest.raises(UserError, match=r"silo-2\.adapter trains another adapter"):
        _run(experiment_file, "rounds=1")


def test_clients_that_bring_their_own_files(experiment_file: Path, tmp_path: Path) -> None:
    lines = ["clients:\n"]
    for number, name in enumerate(("north", "south")):
        file = write_lines(tmp_path / f"{name}.jsonl", reviews(40 + 40 * number, seed=number))
        lines.append(f"  {name}: {{data: {{path: {file}}}}}\n")
    experiment_file.write_text(experiment_file.read_text() + "".join(lines))
    folder = _run(experiment_file, "rounds=1")
    record = run_folder.read_rounds(folder)[-1]
    assert record.clients == ("north", "south")


def test_going_on_from_an_earlier_adapter(experiment_file: Path, tmp_path: Path) -> None:
    first = _run(experiment_file)
    score = run_folder.read_rounds(first)[-1].test
    words = ["adapter.lora=null", f"adapter.from={first}", f"output_dir={tmp_path / 'second'}"]
    second = _run(experiment_file, *words)
    assert run_folder.read_rounds(second)[0].test == score
    assert _digest(second) != _digest(first)


def test_an_algorithm_from_outside_the_package(experiment_file: Path, tmp_path: Path) -> None:
    name = f"{ROOT / 'examples' / 'my_algorithm.py'}:Democracy"
    text = experiment_file.read_text()
    experiment_file.write_text(text + f"algorithm: {{'{name}': {{server_rate: 0.5}}}}\n")
    folder = _run(experiment_file)
    assert run_folder.read_rounds(folder)[1].weight == 3.0, "one silo, one vote"
    assert "server_rate: 0.5" in (folder / "experiment.yaml").read_text()


def test_silos_too_small_to_hold_anything_out(experiment_file: Path) -> None:
    words = ["num_clients=100", "data.partition=iid", "fraction_train=0.02", "rounds=1"]
    words.append("data.test=40")  # leaves one row for each
    folder = _run(experiment_file, *words)
    assert not run_folder.read_rounds(folder)[-1].client_test


def test_a_task_from_outside_is_kept_by_its_name(experiment_file: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from dataclasses import dataclass\n"
        "from hanse.evaluation.classification import Classification\n\n"
        "@dataclass(frozen=True)\nclass Mine(Classification):\n    'The same under another name.'\n"
    )
    folder = _run(experiment_file, "evaluation.tasks=['tasks.py:Mine']", "rounds=1")
    assert run_folder.read_evaluation(folder, "test-Mine", 1).metrics["accuracy"] >= 0


def test_evaluate_scores_the_same_rows_the_same(experiment_file: Path) -> None:
    folder = _run(experiment_file)
    found = evaluate.compare(folder)["classification"]
    rounds = run_folder.read_rounds(folder)
    assert found.base.metrics == pytest.approx(rounds[0].test)
    assert found.adapted.metrics == pytest.approx(rounds[-1].test)


def test_check_predicts_bytes_exactly(experiment_file: Path) -> None:
    found = preview(load(experiment_file))
    folder = _run(experiment_file)
    for row in run_folder.read_ledger(folder):
        if row.kind == "train":
            assert row.down == found.traffic["train"][row.client].down
            assert row.up == found.traffic["train"][row.client].up
    assert found.table.clients.keys() == {"silo-1", "silo-2", "silo-3"}
    assert found.table.labels == ("negative", "positive")
    assert ("".join(p for p, learned in found.example if learned)).strip() in found.table.labels


def test_scores_are_kept_item_by_item(experiment_file: Path) -> None:
    folder = _run(experiment_file)
    kept = json.loads((folder / "scores" / "test-classification-00003.json").read_text())
    assert len(kept["items"]) == 30
    assert sum(kept["items"]) / 30 == pytest.approx(kept["metrics"]["accuracy"])
