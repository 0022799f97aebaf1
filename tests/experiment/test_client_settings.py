"""In what one client's adapter may differ, by what the algorithm declares."""

from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.client_settings import check_clients
from hanse.experiment.overrides import merge
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
            "feddistill, fedmkt, fedpipe, flexlora, flora, hetlora, and target_modules",
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


PATHS = {"north": {"data": {"path": "n.jsonl"}}, "south": {"data": {"path": "s.jsonl"}}}


def check_sums(aggregator: str, clients: dict[str, Any]) -> None:
    own = {name: merge(PATHS[name], clients.get(name, {})) for name in PATHS}
    check_clients(Experiment.model_validate({"aggregator": aggregator, "clients": own}))


@pytest.mark.parametrize(
    ("over", "setting"),
    [
        ({"train": {"learning_rate": 1e-30}}, "train"),
        ({"adapter": {"lora": {"lora_dropout": 0.9}}}, "adapter"),
        ({"model": {"max_length": 8}}, "model"),
        ({"compression": {"upload": ["bf16"]}}, "compression"),
        ({"data": {"client_test": 0.99}}, "data.client_test"),
        ({"data": {"filter": {"text": "x"}}}, "data.filter"),
        ({"data": {"template": "{x}"}}, "data.template"),
    ],
)
def test_no_client_of_a_sum_contributes_by_settings_of_its_own(
    over: dict[str, Any], setting: str
) -> None:
    check_sums("mean", {"south": over})
    with pytest.raises(UserError, match=f"clients.south has {setting} of its own, but SecAgg"):
        check_sums("secagg", {"south": over})


def test_clients_of_a_sum_say_where_their_rows_lie() -> None:
    rows = {"columns": {"text": "body"}, "encoding": "gbk"}
    check_sums("secagg", {"north": {"data": rows, "links": {"up_mbps": 1.0}}})
