"""The roles stay small: in their files, in what simple methods override, in toys of new methods."""

from pathlib import Path

import pytest

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedprox import FedProx
from hanse.federation.interfaces.algorithm import Algorithm
from samples import ROOT

SMALL = [
    *(ROOT / "src" / "hanse" / "federation" / "interfaces").glob("*.py"),
    *(ROOT / "tests" / "parts").glob("*.py"),
]
LONGEST = 120  # lines


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.stem)
def test_a_role_and_a_toy_of_each_method_to_come_fit_on_two_pages(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize(
    ("algorithm", "methods"), [(FedAvg, {"train", "step"}), (FedProx, {"train"})]
)
def test_a_simple_algorithm_overrides_little(algorithm: type, methods: set[str]) -> None:
    assert {name for name in vars(algorithm) if callable(getattr(Algorithm, name, None))} - {
        name for name in vars(algorithm) if name.startswith("__")
    } == methods
