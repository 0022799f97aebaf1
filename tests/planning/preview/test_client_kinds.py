"""What each client trains, where clients differ, as `hanse check` shows it."""

from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_mixed_clients_are_told_apart_in_full(
    experiment_file: Path, tiny_gpt2: Path, hanse: Callable[..., Outcome]
) -> None:
    """Two ranks, a quantized base, and teachers of which one silo has its own, in one run."""
    pytest.importorskip("bitsandbytes")
    rank = "adapter: {lora: {r: 16, lora_alpha: 32}}"
    own = f"clients={{silo-1: {{{rank}, models: {{teacher: {{bf16: true}}}}}}, "
    outcome = hanse(
        *("check", experiment_file, "algorithm=hetlora", "data.partition=iid"),
        *("adapter.lora.r=16", "adapter.lora.lora_alpha=32"),
        "objective={distill: {of: classify, weight: 0.3}}",
        f"models.teacher={{model_name_or_path: {tiny_gpt2}, bf16: false}}",
        f"{own} silo-2: {{{rank.replace('16', '4').replace('32', '8')}}}, "
        "silo-3: {model: {quantization: nf4}}}",
    )
    assert outcome.code == 0, outcome.err
    lines = [line.strip() for line in outcome.out.splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("silo-1 trains"))
    total = "45,216 parameters, frozen, in"
    assert lines[start : start + 6] == [
        "silo-1 trains lora of rank 16, 8 tensors with 3,584 parameters, in tiny-llama",
        "silo-2 trains lora of rank 4, 8 tensors with 896 parameters, in tiny-llama",
        "silo-3 trains lora of rank 16, 8 tensors with 3,584 parameters, in tiny-llama in nf4",
        f"teacher    {tiny_gpt2} at silo-1: {total} bfloat16",
        f"teacher    {tiny_gpt2} at silo-2 and 1 more: {total} float32",
        "objective  distill (of: classify, weight: 0.3)",
    ]
    lengths = [line for line in lines if "tokens on average" in line]
    assert len(lengths) == 1 and not lengths[0].startswith("silo")
