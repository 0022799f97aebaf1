"""docs/privacy.md says what is so: settings, figures, and what a silo may ask for."""

import re
from dataclasses import fields
from math import sqrt

import pytest

from hanse.deployment.silo.policy import Privacy
from hanse.experiment.part_kinds import ALGORITHM
from hanse.federation.accounting.calibration import noise_for
from hanse.federation.aggregators.mean import Mean
from hanse.federation.compatibility.parts import check
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.privacy.client_dp import ClientDp
from hanse.federation.privacy.example_dp import ExampleDp
from hanse.journal.privacy_record import PrivacyRecord
from samples import ROOT

PAGE = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading."""
    section = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.M))
    return {name: second for name, second in rows.items() if second != "default"}


def shown(default: object) -> str:
    return "none" if default is None else str(default)


def test_its_settings_have_their_defaults() -> None:
    expected = {field.name: shown(field.default) for field in fields(ClientDp)}
    assert table("Settings") == expected


def test_settings_of_rows_have_their_defaults() -> None:
    expected = {field.name: shown(field.default) for field in fields(ExampleDp)}
    assert table("Rows in place of silos") == expected


def test_a_silos_demands_have_their_defaults() -> None:
    fields_of = Privacy.model_fields
    expected = {name: shown(field.default) for name, field in fields_of.items()}
    assert table("A silo's demands") == expected


def test_the_record_has_the_keys_that_are_named() -> None:
    section = PAGE.split("\n## `privacy.json`")[1]
    named = re.findall(r"^\| (`.*?`) \| ", section, re.M)
    keys = [key for cell in named for key in re.findall(r"`(\w+)`", cell)]
    assert {*keys} == {field.name for field in fields(PrivacyRecord)}


@pytest.mark.extras
@pytest.mark.parametrize("epsilon", [16, 8, 4, 2])
def test_its_figures_are_computed(epsilon: int) -> None:
    pytest.importorskip("dp_accounting")
    [row] = re.findall(rf"^\| {epsilon} \| (.*) \|$", PAGE, re.M)
    few, many, *ratios = map(float, row.split(" | "))
    # The noise is the least one within 0.3 %.
    z = noise_for(epsilon, 1e-5, 6)
    assert [few, many] == pytest.approx([z, noise_for(epsilon, 1e-5, 60)], rel=0.005)
    expected = [z * sqrt(10_000) / silos for silos in (10, 100, 1000)]
    assert ratios == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedopt"])
def test_the_algorithms_that_it_names_work(name: str) -> None:
    upload = Pipeline("upload", mechanisms=(ClientDp(noise_multiplier=1.0),))
    check(ALGORITHM.build(name), Mean(), Pipelines(upload))
