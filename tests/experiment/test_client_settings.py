"""In what one client's adapter may differ, by what the algorithm declares."""

import pytest

from hanse.errors import UserError
from hanse.experiment.client_settings import check_clients
from hanse.experiment.schema import Experiment
from hanse.security.trusted_code import granting
from samples import ROOT

PLAN = f"{ROOT}/tests/parts/layout_plan.py:LayoutPlan"


def check(algorithm: str, adapter: object) -> None:
    with granting():
        check_clients(
            Experiment.model_validate(
                {"algorithm": algorithm, "clients": {"silo-1": {"adapter": adapter}}}
            )
        )


@pytest.mark.parametrize(
    ("algorithm", "adapter"),
    [
        ("fedavg", {"lora": {"lora_dropout": 0.1}}),
        ("flora", {"lora": {"r": 2, "lora_alpha": 8}}),
        (PLAN, {"lora": {"r": 2, "lora_alpha": 8}}),
        (PLAN, {"lora": {"target_modules": ["q_proj"], "layers_to_transform": [1]}}),
        (PLAN, {"lora": {"rank_pattern": {"q_proj": 2}}}),
    ],
)
def test_what_the_algorithm_allows(algorithm: str, adapter: object) -> None:
    check(algorithm, adapter)


@pytest.mark.parametrize(
    ("algorithm", "adapter", "said"),
    [
        (
            "fedavg",
            {"lora": {"r": 2}},
            "only lora_dropout may differ, and r and lora_alpha with an algorithm for that: "
            "flexlora, flora, hetlora.",
        ),
        ("flora", {"lora": {"target_modules": ["q_proj"]}}, "only lora_dropout, r, lora_alpha may"),
        (
            "flora",
            {"lora": {"rank_pattern": {"q_proj": 2}}},
            "only lora_dropout, r, lora_alpha may",
        ),
        (
            PLAN,
            {"lora": {"use_rslora": True}},
            "only lora_dropout, r, lora_alpha, target_modules, layers_to_transform, rank_pattern ",
        ),
        (PLAN, "ia3", "trains another adapter than the other clients'"),
    ],
)
def test_what_it_does_not_allow(algorithm: str, adapter: object, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        check(algorithm, adapter)
    assert said in str(refusal.value)
