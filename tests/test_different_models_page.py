"""docs/different-models.md says what is so: who needs what, and what is under secure sums."""

import re

import pytest

from hanse.errors import UserError
from hanse.experiment.part_kinds import AGGREGATOR, ALGORITHM, OBJECTIVE
from hanse.federation.compatibility.parts import check
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.pipeline import Pipelines
from samples import ROOT

PAGE = (ROOT / "docs" / "different-models.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
METHODS = ("fedkd", "fedcollm", "feddistill", "fedmkt")
ROWS = {
    first: dict(zip((*METHODS, "distill"), cells, strict=True))
    for first, *cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.split("## Which to choose")[1].split("\n\n")[1].splitlines()[2:]
    )
}


def find(name: str) -> type[Algorithm]:
    return ALGORITHM.find(name)


@pytest.mark.parametrize("name", METHODS)
def test_its_table_names_the_holders_of_public_rows(name: str) -> None:
    said = ROWS["public rows at"][name]
    assert {word for word in ("server", "silos") if word in said} == {
        "silos" if holder == "clients" else holder for holder in find(name).needs_public
    }


@pytest.mark.parametrize("name", METHODS)
def test_its_table_names_the_models_that_may_differ(name: str) -> None:
    found = find(name)
    declared = {*found.client_models, *found.server_models}
    said = ROWS["models that may differ"][name]
    assert {*re.findall(r"`models\.(\w+)`", said)} == declared
    assert (found.clients_may_differ == "model") == (not declared)
    assert (ROWS["models that all silos share"][name] == "none") == (not declared)


@pytest.mark.parametrize("name", METHODS)
def test_its_table_says_which_methods_secure_sums_serve(name: str) -> None:
    said = {"yes": True, "no": False}[ROWS["under [secure sums](secure-sums.md)"][name]]
    assert said == serves(name)


def serves(name: str) -> bool:
    try:
        check(ALGORITHM.build(name), AGGREGATOR.build("secagg"), Pipelines())
    except UserError:
        return False
    return True


def test_the_teachers_name_is_that_of_the_objective() -> None:
    names = OBJECTIVE.find("distill").models
    assert ROWS["models that may differ"]["distill"] == f"`models.{names[0]}` of each silo"


def test_its_setting_of_false_predictions_is_one_of_fedmkt() -> None:
    assert "λ in `label_weight`" in TEXT and hasattr(find("fedmkt"), "label_weight")
