"""The experiments of the repository: each loads, and its first line is the command that runs it."""

from pathlib import Path

import pytest

from hanse.experiment.loading import load
from samples import ROOT

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=[file.stem for file in EXPERIMENTS])
def test_an_experiment_loads_and_names_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# hanse ") and f" experiments/{file.name}" in first
    assert load(file).name == file.stem


def test_secure_sums_are_the_demo_with_another_rule() -> None:
    demo, summed = (
        load(ROOT / "experiments" / f"{name}.yaml").resolved()
        for name in ("quickstart", "secure_sums")
    )
    assert {key for key in demo if demo[key] != summed[key]} == {"name", "aggregator"}
