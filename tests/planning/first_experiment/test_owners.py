"""Columns that say whose rows these are, in `hanse init`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from samples import Outcome

CITIES = ("New York", "Kiel", "Ulm")


def written(tmp_path: Path, column: str, values: list[str | None]) -> None:
    rows = [
        {"prompt": f"Question {n}?", "completion": f"Answer {n}.", column: value}
        for n, value in enumerate(values)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_silos_of_a_column_have_the_names_of_its_values(
    hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    written(tmp_path, "hospital", [CITIES[n * n % 3] for n in range(30)] + ["Ulm"] * 9)
    done = hanse("init", "--from", "a.jsonl")
    told = " ".join(done.out.split())
    assert "sft, 3 silos (by hospital)" in told
    assert "hospital: its 3 values are the silos" in told
    experiment = load(tmp_path / "a.yaml")
    assert experiment.client_names == ["Kiel", "New-York", "Ulm"]
    dataset = divide(experiment)
    for name in experiment.client_names:
        rows = [*dataset.train[name], *dataset.held[name]]
        assert {row.fields["hospital"].replace(" ", "-") for row in rows} == {name}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["1", "2", "10"], ["site-1", "site-2", "site-10"]),
        (["a b", "a-b", "c"], ["silo-1", "silo-2", "silo-3"]),
        (["!", "?", "c"], ["silo-1", "silo-2", "silo-3"]),
        (["silo-2", "silo-3", "x"], ["silo-1", "silo-2", "silo-3"]),
    ],
)
def test_names_are_valid_and_distinct(
    hanse: Callable[..., Outcome], tmp_path: Path, values: list[str], names: list[str]
) -> None:
    written(tmp_path, "site", [values[n % 3] for n in range(30)])
    assert hanse("init", "--from", "a.jsonl", "--silos", 3).code == 0
    assert load(tmp_path / "a.yaml").client_names == names


@pytest.mark.parametrize(
    ("column", "values", "words", "said"),
    [
        ("user_id", [f"u{n % 25}" for n in range(75)], [],
         "user_id may name the owners of rows; it has 25 values for 4 silos, so it is not used: "
         "--silos 25 makes a silo of each, and data.partition: {key: {column: user_id}} deals "
         "whole values to the 4."),
        ("hospital", ["a", "b", None] * 10, [],
         "hospital may name the owners of rows, and is not used, since rows lack it."),
        ("hospital", ["a", "b", "c"] * 10, ["--silos", 2],
         "it has 3 values for 2 silos, so it is not used"),
        ("topic", ["a", "b", "c"] * 10, [],
         "topic may name the owners of rows; it has 3 values for 4 silos, so it is not used: "
         "--silos 3 makes a silo of each."),
    ],
)  # fmt: skip
def test_a_column_that_is_not_taken_is_offered(
    hanse: Callable[..., Outcome],
    tmp_path: Path,
    column: str,
    values: list[str | None],
    words: list[object],
    said: str,
) -> None:
    written(tmp_path, column, values)
    done = hanse("init", "--from", "a.jsonl", *words)
    assert done.code == 0 and said in " ".join(done.out.split())
    assert load(tmp_path / "a.yaml").silo_names is None


def test_one_silo_is_no_federation(
    hanse: Callable[..., Outcome], tmp_path: Path, tiny_llama: Path
) -> None:
    written(tmp_path, "note", ["x"] * 12)
    said = "one silo is no federation: nothing is averaged"
    done = hanse("init", "--from", "a.jsonl", "--silos", 1)
    assert said in " ".join(done.out.split()) and "chosen   sft, 1 silo, " in done.out
    model = [f"model.model_name_or_path={tiny_llama}", "model.bf16=false"]
    assert said in " ".join(hanse("check", "a.yaml", *model).out.split())
    assert hanse("run", "a.yaml", *model, "rounds=1", "output_dir=run").code == 0
    assert said in (tmp_path / "run" / "division.json").read_text()
    done = hanse("check", "a.yaml", *model, "num_clients=2")
    assert said not in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("silo_names=[a, b, c]", "silo_names has 3 names, and num_clients is 4"),
        ("silo_names=[a, b, A, c]", "silo_names has a name twice"),
        ("silo_names=[a, b, c, 'd e']", "silo_names"),
    ],
)
def test_wrong_names_of_silos_are_refused(
    hanse: Callable[..., Outcome], experiment_file: Path, change: str, said: str
) -> None:
    done = hanse("check", experiment_file, "num_clients=4", change)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
