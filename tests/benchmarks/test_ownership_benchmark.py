"""The benchmark of owners' marks on a tiny job: its rows, and who has laid which mark."""

from pathlib import Path

import ownership
import pytest
import torch

TINY = (
    *("rounds=1", "num_clients=4", "train.max_steps=2", "clients_per_pass=off", "data.test=20"),
    "data.validation=20",
)
ADAPTER = "adapter: {lora: {r: 8, target_modules: [q_proj, v_proj, o_proj]}}"


@pytest.fixture
def runs(tmp_path: Path, experiment_file: Path) -> ownership.Runs:
    lines = experiment_file.read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not line.startswith("adapter:")]
    experiment_file.write_text("\n".join([*others, ADAPTER, ""]), encoding="utf-8")
    return ownership.Runs(tmp_path / "home", TINY, experiment_file)


def test_rows_of_marks_prompts_a_rider_and_further_training(runs: ownership.Runs) -> None:
    names = [ownership.PLAIN, ownership.MARKED, "marked, 40 triggers", ownership.RIDDEN]
    content = ownership.compare(
        [*names, ownership.FURTHER], runs, seeds=(1,), workers=0, strange=(5, 50)
    )
    lines = content["rows"]
    assert [*lines] == [*names, ownership.FURTHER]
    assert lines[ownership.MARKED]["keys"] == 4
    assert lines[ownership.MARKED]["survives"].keys() == ownership.CHANGES.keys()
    assert lines["marked, 40 triggers"]["prompts"]["keys"] == 4
    ridden = lines[ownership.RIDDEN]
    assert (ridden["keys"], ridden["rider"]["keys"]) == (3, 1)
    assert "ahead" in ridden and "ahead" not in lines[ownership.PLAIN]
    assert content["strangers"]["whole_keys"]["keys"] == 5
    again = ownership.compare(names, runs, seeds=(1,), workers=0, strange=(5, 50))
    assert again["rows"] == lines


def test_the_theorems_bound_is_tried_by_one_seed_and_without_test_reviews(
    runs: ownership.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "256 bits in two layers"
    way = ownership.Way(
        choices={"bits": 64, "place": "weights", "tensors": "*.lora_A.weight"},
        words=(ownership.UNSCORED,),
        once=True,
    )
    monkeypatch.setattr(ownership, "WAYS", {**ownership.WAYS, name: way})
    row = ownership.compare([name], runs, seeds=(1, 2), workers=0)["rows"][name]
    assert row["keys"] == 4 and row["channels"] > 256 and row["bound"] == 1.0
    assert "runs" not in row and "accuracy" not in row


def test_a_key_is_drawn_once_and_looked_for_in_the_run_without_marks(runs: ownership.Runs) -> None:
    files = runs.keys(ownership.MARKED, 1)
    before = {silo: file.read_bytes() for silo, file in files.items()}
    assert runs.keys(ownership.PLAIN, 1) == runs.keys(ownership.FURTHER, 1) == files
    assert {silo: file.read_bytes() for silo, file in files.items()} == before
    assert not any("ownership" in word for word in runs.task(ownership.PLAIN, 1).settings)


def test_pruning_takes_the_smallest_and_rounding_keeps_the_largest() -> None:
    whole = {"a": torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])}
    assert ownership.pruned(0.4)(whole)["a"].tolist() == [0.0, 0.0, 3.0, -4.0, 5.0]
    rounded = ownership.rounded(whole)["a"]
    assert rounded[-1] == 5.0
    assert (rounded - whole["a"]).abs().max() <= 5 / 127 / 2 + 1e-6


def test_every_way_is_in_one_part() -> None:
    assert sorted(n for part in ownership.PARTS.values() for n in part) == sorted(ownership.WAYS)
