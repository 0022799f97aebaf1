"""What each client trains, where clients differ, as `hanse check` shows it."""

from collections.abc import Callable
from pathlib import Path

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.planning.preview.client_kinds import ClientKind, client_kinds
from samples import ROOT, Outcome

PLAN = f"algorithm={ROOT}/tests/parts/layout_plan.py:LayoutPlan"
CLIENTS = (
    "clients={silo-1: {train: {max_steps: 1}}, silo-2: {adapter: {lora: {r: 2, lora_alpha: 8, "
    "target_modules: [q_proj], rank_pattern: {layers.1.self_attn.q_proj: 1}}}}}"
)


def test_clients_of_one_kind_are_listed_together(experiment_file: Path) -> None:
    kinds = client_kinds(simulate(load(experiment_file, [PLAN, CLIENTS])))
    assert kinds == {
        # q_proj (32, 32) and v_proj (32, 16) in two layers, with rank 4
        ClientKind("lora of rank 4", "tiny-llama", 8, 2 * 4 * (64 + 48)): ["silo-1", "silo-3"],
        ClientKind("lora of rank 1 to 2", "tiny-llama", 4, (2 + 1) * 64): ["silo-2"],
    }


def test_nothing_is_listed_if_all_train_the_same(experiment_file: Path) -> None:
    own_steps = "clients={silo-1: {train: {max_steps: 1}}}"
    assert client_kinds(simulate(load(experiment_file, [own_steps]))) == {}
    assert client_kinds(simulate(load(experiment_file))) == {}


def test_the_command_prints_them(experiment_file: Path, hanse: Callable[..., Outcome]) -> None:
    outcome = hanse("check", experiment_file, PLAN, CLIENTS)
    assert outcome.code == 0
    wanted = [
        "silo-1 and 1 more train lora of rank 4, 8 tensors with 896 parameters, in tiny-llama",
        "silo-2 trains lora of rank 1 to 2, 4 tensors with 192 parameters, in tiny-llama",
    ]
    lines = [line.strip() for line in outcome.out.splitlines()]
    assert [line for line in lines if "silo-" in line and "train" in line] == wanted
