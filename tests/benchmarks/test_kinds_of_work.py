"""A step's operators count for the right kind of work, also within one autograd function."""

from pathlib import Path
from typing import Any

import profile_step
import pytest
import torch
from kinds_of_work import (
    ADAPTED,
    ADAPTER_PRODUCTS,
    ADAPTER_SUMS,
    ATTENTION,
    BACKWARD,
    COPIES,
    FROZEN_PRODUCTS,
    KINDS,
    OTHER,
    PREFIX,
    RESIDUAL_SUMS,
    Event,
    Work,
    by_work,
    calls,
    kind_of,
)
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from profile_step import DISPATCH, Profile, Repeats, learner, measure, shares
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

RANK = 8


class FusedLora(torch.autograd.Function):
    """A layer with its adapter: one product with the frozen weight, and two with small ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        return torch.mm(x, weight.t()).addmm_(torch.mm(x, down.t()), up.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        x, weight, down, up = ctx.saved_tensors
        [gradient] = gradients
        low = torch.mm(gradient, up)
        own = torch.mm(gradient, weight).addmm_(low, down)
        return own, None, torch.mm(low.t(), x), torch.mm(gradient.t(), torch.mm(x, down.t()))


class Twice(nn.Module):
    """Two linear layers that read the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.second(x)


def _kinds(found: dict[Work, float], operator: str) -> set[str]:
    return {work.kind for work in found if work.operator == f"aten::{operator}"}


def _adapted(fused: bool) -> tuple[Any, Tensor]:
    model = get_peft_model(Twice(), LoraConfig(r=RANK, target_modules=["first", "second"]))
    if fused:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                _fuse(layer)
    return model, torch.randn(20, 32, requires_grad=True)


def _fuse(layer: Any) -> None:
    parts = layer.get_base_layer(), layer.lora_A["default"], layer.lora_B["default"]
    layer.forward = lambda x: FusedLora.apply(x, *(part.weight for part in parts))


@pytest.mark.parametrize("fused", [False, True])
def test_products_are_divided_by_their_sides_in_both_passes(fused: bool) -> None:
    model, x = _adapted(fused)
    forward, _ = by_work(lambda: model(x), {RANK})
    assert _kinds(forward, "mm") == {FROZEN_PRODUCTS, ADAPTER_PRODUCTS}
    both, _ = by_work(lambda: model(x).sum().backward(), {RANK})
    assert _kinds(both, "mm") == {FROZEN_PRODUCTS, ADAPTER_PRODUCTS}
    assert _kinds(both, "addmm_") == ({ADAPTER_PRODUCTS} if fused else set())


@pytest.mark.parametrize("fused", [False, True])
def test_sums_that_the_adapter_causes_are_its_own(fused: bool) -> None:
    model, x = _adapted(fused)
    found, _ = by_work(lambda: model(x).sum().backward(), {RANK})
    sums = {work.kind for work in found if work.operator in ("aten::add", "aten::add_")}
    assert sums == ({RESIDUAL_SUMS} if fused else {RESIDUAL_SUMS, ADAPTER_SUMS})
    assert (ADAPTER_SUMS in _kinds(found, "mul")) != fused, "scaling"


def test_a_model_without_adapters_has_no_work_of_them(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).requires_grad_(False)
    embedded = torch.randn(2, 12, 32, requires_grad=True)
    found, _ = by_work(lambda: model(inputs_embeds=embedded).logits.sum().backward(), {RANK})
    kinds = {work.kind for work in found}
    assert kinds.isdisjoint({ADAPTER_PRODUCTS, ADAPTER_SUMS})
    assert kinds >= {FROZEN_PRODUCTS, ATTENTION, "norms", "rotary", "activations", RESIDUAL_SUMS}


def test_seconds_are_an_operators_own_and_the_backward_pass_finds_its_place() -> None:
    events = [
        Event(0, 100, PREFIX + ADAPTED, -1, ()),
        Event(10, 90, "aten::linear", 7, ()),
        Event(20, 80, "aten::mm", 7, ((20, 32), (32, RANK))),
        Event(30, 40, "aten::copy_", -1, ()),
        Event(200, 300, BACKWARD + "MmBackward0", 7, ()),
        Event(210, 250, "MmBackward0", 7, ()),
        Event(220, 240, "aten::mm", -1, ((20, 32), (32, 32))),
        Event(260, 280, "aten::add_", -1, ()),
        Event(400, 410, "aten::mm", -1, ((20, 32), (32, RANK))),
    ]
    found = [(call.event.name, kind_of(call, {RANK}), call.seconds) for call in calls(events)]
    assert [(name, kind) for name, kind, _ in found if kind] == [
        ("aten::mm", ADAPTER_PRODUCTS),
        ("aten::copy_", COPIES),
        ("aten::mm", FROZEN_PRODUCTS),
        ("aten::add_", ADAPTER_SUMS),
        ("aten::mm", FROZEN_PRODUCTS),
    ]
    assert [seconds for _, kind, seconds in found if kind] == pytest.approx(
        [50e-9, 10e-9, 20e-9, 20e-9, 10e-9]
    )


def test_what_no_operator_takes_is_python_without_the_profilers_seconds() -> None:
    work = {Work(FROZEN_PRODUCTS, "aten::mm", "x"): 0.6, Work(OTHER, "aten::rand", "x"): 0.1}
    found = shares(Profile(1.7, work, events=7), event=0.1)
    assert found["profiler_adds_seconds"] == pytest.approx(0.7)
    assert found["shares"] == pytest.approx(
        {**dict.fromkeys(KINDS, 0.0), FROZEN_PRODUCTS: 0.6, OTHER: 0.1, DISPATCH: 0.3}
    )
    assert found["largest"][0] == {
        **{"kind": FROZEN_PRODUCTS, "operator": "aten::mm", "place": "x"},
        "share": pytest.approx(0.6),
    }


def test_both_loops_train_the_same_and_their_shares_have_the_sum_one(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_step.flops, "peak", lambda *_: 1e12)
    ours, plain = measure(learner(str(tiny_llama), bf16=False, steps=2), Repeats(2, 1, 1), 1e-7)
    assert (ours["loop"], plain["loop"]) == ("ours", "plain")
    for loop in (ours, plain):
        assert sum(loop["shares"].values()) == pytest.approx(1.0)
        assert all(loop["shares"][kind] > 0 for kind in KINDS)
        assert loop["tokens_a_second"] == pytest.approx(160 / loop["step_seconds"])
        assert loop["share_of_peak"] == loop["flops_a_second"] / 1e12 > 0
