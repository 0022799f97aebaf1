"""The benchmark of unequal models: rows, their runs and baselines, the table."""

from pathlib import Path
from typing import Any

import distillation
import distillation_tables
from distillation import Runs, beside
from distillation_ways import (
    AT_SERVER,
    AT_SILOS,
    BASELINE,
    FAMILIES,
    JUDGES,
    MIXED,
    PLACES,
    SERVER_BASELINE,
    SILOS,
    WAYS,
)

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
RATES = {AT_SILOS: 0.004, AT_SERVER: 0.002}


def test_each_run_is_an_experiment_of_its_own(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    tasks = [task for name in WAYS for seed in (1, 2) for task in runs.compared(name, seed, RATES)]
    assert len({task.folder for task in tasks}) == len(set(tasks))  # shared runs are the same
    for task in {
        task.folder.name: task for task in tasks if task.folder.name.endswith("-1")
    }.values():
        experiment = task.experiment()
        # a path is resolved against the experiment's file only once the file is there
        rows = ROOT / "experiments" / experiment.data.path
        assert rows.resolve().parent == distillation.unequal_models.FOLDER
        if "base" not in task.folder.name and not experiment.data.pooled:
            rates = {experiment.for_client(name).train.learning_rate for name in SILOS}
            assert rates == {0.004}
    for name in JUDGES:
        assert runs.tuning(name, 0.001, 101).experiment().evaluation.test is False
    assert {judge for family in FAMILIES.values() for judge in family.judges} == {*JUDGES}


def test_silos_have_the_models_that_the_rows_say(tmp_path: Path) -> None:
    [feddistill] = Runs(tmp_path).compared("feddistill", 1, RATES)
    experiment = feddistill.experiment()
    for silo, name in MIXED.items():
        own = experiment.for_client(silo)
        path, layers = PLACES[name]
        assert Path(own.model.model_name_or_path).name == Path(path).name
        assert list(own.adapter.fresh.layers_to_transform) == layers
    for task, name in zip(
        Runs(tmp_path).compared("each alone: unequal", 1, RATES), MIXED.values(), strict=True
    ):
        assert Path(task.experiment().model.model_name_or_path).name == Path(PLACES[name][0]).name


def scored(own: float | None, items: str | None, together: bool = True) -> Row:
    row: Row = {"at_silos": "small", "at_server": "large", "together": together, "runs": []}
    if own is not None:
        row["own"] = distillation._own([own, 1.1 * own, 1.2 * own], 1200)
    if items is not None:
        row["runs"] = [{"items": items}] * 3
        row["server"] = {"accuracy": 0.5, "over_seeds": [0.4, 0.6], "test_items": len(items)}
    return {**row, "up_bytes": 1500.0, "down_bytes": 2500.0, "own_loss": 0.6, "test_loss": 0.5}


def test_rows_are_compared_with_each_alone_and_with_public_reviews_alone() -> None:
    rows = {
        "each alone: unequal": scored(0.6, None, together=False),
        "feddistill": scored(0.65, "1" * 15 + "0" * 5),
        "public reviews alone": scored(None, "1" * 10 + "0" * 10, together=False),
    }
    beside(rows)
    assert abs(rows["feddistill"]["own_ahead"][0] - 0.055) < 1e-9
    assert rows["feddistill"]["ahead"][0] == 0.25
    assert "ahead" not in rows["public reviews alone"]
    assert "own_ahead" not in rows["each alone: unequal"]
    named = {*BASELINE.values(), *SERVER_BASELINE.values()}
    assert named <= {*WAYS}

    families = {"at silos": {"rate": 0.003, "tried": {"0.001": 0.5, "0.003": 0.6, "0.01": 0.5}}}
    result = {"protocol": {"seeds": [1, 2, 3], "deals": [101]}, "families": families, "rows": rows}
    lines = distillation_tables.distillation(result)
    assert lines[3].startswith("| feddistill | small | 71.5 % (")
    assert (
        "| 0.600 | +5.5 (+4.3 to +6.7) | large | 50.0 % (40.0 to 60.0) | 0.500 | +25.0 ("
        in lines[3]
    )
    assert lines[3].endswith("| 1.5, 2.5 |") and lines[2].endswith("| — |")
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "1,200 reviews in all" in lines[-1] and "The same" not in lines[-1]
