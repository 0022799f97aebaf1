"""baselines.json against the runs' own records, and what it concludes from them."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import paired
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.journal.baselines_records import (
    BaselinesRecord,
    Outcome,
    Span,
    SummaryLine,
    VariantRecord,
)
from hanse.simulation.baselines import runs
from hanse.simulation.baselines.verdict import verdict


def test_figures_are_those_of_the_runs(trained: Path) -> None:
    figures = _figures(trained)
    by_name = {
        variant["name"]: {o["seed"]: o for o in variant["seeds"]} for variant in figures["variants"]
    }
    lines = {line["name"]: line for line in figures["summary"]}
    assert (figures["done"], figures["planned"], figures["test_items"]) == (18, 18, 30)
    assert (figures["metric"], figures["clients"], figures["rounds"]) == ("accuracy", 3, 3)

    run = trained / "seed-1" / "federated"
    before = run_folder.read_evaluation(run, "test-classification", 0).items
    after = run_folder.read_evaluation(run, "test-classification", 3).items
    found = by_name["federated"][1]
    assert found["run"] == "seed-1/federated"
    assert found["value"] == pytest.approx(sum(after) / 30)
    assert figures["base"]["value"] == pytest.approx(sum(before) / 30)
    gain = paired(after, before)
    assert gain is not None
    assert (found["gain"], found["low"], found["high"]) == pytest.approx(
        (gain.value, gain.low, gain.high)
    )
    assert (found["steps"], found["examples"]) == (27, 216)
    assert found["bytes"] > 0 == by_name["centralised"][1]["bytes"]
    last = run_folder.read_rounds(run)[-1].client_test
    held = {name: len(rows) for name, rows in divide(load(run / "experiment.yaml")).held.items()}
    right = sum(last[name]["accuracy"] * count for name, count in held.items())
    assert found["own"] == pytest.approx(right / sum(held.values()))

    alone = [[by_name[f"alone-silo-{n}"][s]["value"] for n in (1, 2, 3)] for s in (0, 1)]
    first, second = (sum(values) / 3 for values in alone)
    assert lines["alone"]["value"] == pytest.approx((first + second) / 2)
    federated = [by_name["federated"][s]["value"] for s in (0, 1)]
    gaps = [first - federated[0], second - federated[1]]
    # Two seeds: the 97.5 % quantile of Student's t with one degree of freedom is tan(0.475 π).
    half = math.tan(0.475 * math.pi) * abs(gaps[0] - gaps[1]) / 2
    against = lines["alone"]["against_federated"]
    assert against["value"] == pytest.approx(sum(gaps) / 2)
    assert against["high"] - against["low"] == pytest.approx(2 * half)
    assert (lines["alone"]["steps"], lines["alone-longer"]["steps"]) == (9, 27)
    assert (lines["centralised"]["steps"], lines["centralised"]["examples"]) == (9, 216)


def test_scores_of_two_versions_are_not_paired(trained: Path, tmp_path: Path) -> None:
    """The base model's items have another mean than any metric, as an older version wrote them."""
    folder = tmp_path / "baselines"
    shutil.copytree(trained, folder)
    file = folder / "seed-1" / "federated" / "scores" / "test-classification-00000.json"
    scored = json.loads(file.read_text())
    file.write_text(json.dumps(scored | {"metrics": {"loss": 0.25}}))
    with pytest.raises(UserError, match="a row_mean_loss of 30, so they cannot be paired") as error:
        runs.resume(folder)
    assert f"remove {folder / 'seed-1'} and" in str(error.value)


def test_a_loss_is_better_when_it_is_lower(experiment_file: Path) -> None:
    words = ["objective=sft", "rounds=1", "train.max_steps=1"]
    figures = _figures(runs.run(load(experiment_file, words), [0]))
    assert (figures["metric"], figures["higher_is_better"]) == ("loss", False)


def _line(name: str, value: float, gap: float, half: float | None) -> SummaryLine:
    span = Span(gap) if half is None else Span(gap, gap - half, gap + half)
    return SummaryLine(name, "", value, 1, 1, span)


def _record(lines: list[SummaryLine], done: int, planned: int) -> BaselinesRecord:
    counts = {"metric": "score", "done": done, "planned": planned}
    return BaselinesRecord("trial", 3, 3, (0,), "", summary=tuple(lines), **counts)


@pytest.mark.parametrize(
    ("base", "alone", "longer", "half", "higher", "said"),
    [
        (-0.2, -0.1, -0.1, 0.05, True, "Federation pays here: "),
        (-0.2, -0.1, -0.04, 0.05, True, "Whether federation pays is not clear here"),
        (-0.2, -0.1, 0.1, 0.05, True, "Federation does not pay here"),
        (0.2, 0.1, 0.1, 0.05, True, "Federation does not pay here"),
        (0.2, 0.1, 0.1, 0.05, False, "Federation pays here"),
        (-0.2, -0.1, -0.1, None, True, "One seed is too few to say"),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(
    base: float, alone: float, longer: float, half: float | None, higher: bool, said: str
) -> None:
    gaps = {"base": base, "alone": alone, "federated": 0.0, "alone-longer": longer}
    lines = [_line(name, 0.5 + gap, gap, half) for name, gap in gaps.items()]
    found = verdict(replace(_record(lines, 9, 9), higher_is_better=higher))
    assert found.startswith(said)
    assert f"0.500 against {0.5 + base:.3f} of the base model ({-base:+.3f}" in found
    assert "9 of 12 variants are done" in verdict(_record(lines, 9, 12))


def test_seeds_that_agree_leave_the_answer_open() -> None:
    lines = [_line(name, 0.5, 0.1, None) for name in ("base", "alone", "federated", "alone-longer")]
    outcomes = tuple(Outcome(seed, 0.5, f"seed-{seed}") for seed in (0, 1))
    federated = VariantRecord("federated", "federated", "", outcomes)
    found = verdict(replace(_record(lines, 9, 9), variants=(federated,)))
    assert found.startswith("Whether federation pays is not clear here, for not all differences")


def test_nothing_is_said_before_there_is_something_to_compare() -> None:
    lines = [_line("base", 0.4, -0.1, 0.01), _line("federated", 0.5, 0.0, 0.0)]
    found = verdict(_record(lines, 2, 9))
    assert found == "Nothing can be said yet: 2 of 9 variants are done."


def _figures(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "baselines.json").read_text())
    return content
