"""LoRA as one operation: PEFT's values and gradients, for one client and for many."""

import copy
import warnings
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential
from transformers.pytorch_utils import Conv1D

from hanse.learners.kernels import frozen, lora
from hanse.learners.kernels.frozen import FrozenProduct

KERNELS = frozen.kernels(torch.device("cpu"))
NEAR = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def _adapted(kind: type = Linear, **settings: Any) -> tuple[Any, Any]:
    """A model of one layer with LoRA as PEFT computes it, and the same with one operation."""
    torch.manual_seed(5)
    base = Sequential(Conv1D(320, 256) if kind is Conv1D else Linear(256, 320))
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 12, "target_modules": ["0"], "init_lora_weights": False}
        | {"fan_in_fan_out": kind is Conv1D}
        | settings
    )
    plain = peft.inject_adapter_in_model(config, base.eval().requires_grad_(False), "one")
    plain.eval()
    fused = copy.deepcopy(plain)
    lora.use(fused.modules())
    return plain, fused


def _results(model: Module, x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The outputs, and the gradients of a weighted sum of them."""
    leaf = x.clone().requires_grad_()
    torch.manual_seed(seed)
    outputs = model(leaf)
    (outputs.float() * torch.linspace(-1, 1, outputs.shape[-1])).sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert leaf.grad is not None
    return {"outputs": outputs.detach(), "inputs": leaf.grad, **trained}


def _assert_near(results: dict[str, Tensor], expected: dict[str, Tensor], near: float) -> None:
    assert results.keys() == expected.keys()
    for name, wanted in expected.items():
        value = results[name]
        assert value.dtype == wanted.dtype and value.shape == wanted.shape, name
        assert (value - wanted).abs().max() <= near * wanted.abs().max(), name


def _calls_of(monkeypatch: pytest.MonkeyPatch, kind: Any) -> list[Any]:
    """A list that grows with each call of PEFT's own forward pass."""
    calls: list[Any] = []
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *a, **k: calls.append(a) or forward(*a, **k))
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Linear, Conv1D])
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_client_has_pefts_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, kernel: Any, kind: type, dtype: torch.dtype
) -> None:
    plain, fused = _adapted(kind)
    for model in (plain, fused):
        model[0].base_layer.to(dtype)
    layer = fused[0].base_layer
    layer.forward = FrozenProduct(layer, kernel).forward
    x = torch.randn(3, 40, 256).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = _results(plain, x)
        calls = _calls_of(monkeypatch, type(fused[0]))
        _assert_near(_results(fused, x), expected, NEAR[dtype])
    assert not calls


def test_inputs_without_gradients_and_frozen_factors_get_none() -> None:
    plain, fused = _adapted()
    for model in (plain, fused):
        model[0].lora_A["one"].weight.requires_grad_(False)
        model(
            torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
        ).square().sum().backward()
    assert fused[0].lora_A["one"].weight.grad is None
    own, expected = (model[0].lora_B["one"].weight.grad for model in (fused, plain))
    assert torch.allclose(own, expected, rtol=1e-4, atol=1e-4)


def test_dropout_drops_what_pefts_drops() -> None:
    plain, fused = _adapted(lora_dropout=0.5)
    x = torch.randn(3, 40, 256)
    without = _results(plain, x)["outputs"]
    for model in (plain, fused):
        model.zero_grad()
        model[0].lora_dropout.train()
    expected = _results(plain, x)
    assert not torch.allclose(expected["outputs"], without)
    _assert_near(_results(fused, x), expected, 2e-6)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}])
def test_variants_compute_as_peft_does(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    plain, fused = _adapted(**settings)
    x = torch.randn(3, 40, 256)
    expected = _results(plain, x)
    calls = _calls_of(monkeypatch, type(fused[0]))
    _assert_near(_results(fused, x), expected, 1e-6)
    assert calls


def test_no_and_several_adapters_compute_as_peft_does() -> None:
    plain, fused = _adapted()
    x = torch.randn(4, 256)
    for model in (plain, fused):
        model[0].enable_adapters(False)
    assert torch.equal(fused(x), plain(x))
    for model in (plain, fused):
        model[0].enable_adapters(True)
        torch.manual_seed(2)
        config = peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
        with warnings.catch_warnings(action="ignore"):  # that there are several adapters
            peft.inject_adapter_in_model(config, model, "two")
        model.eval()[0].set_adapter(["one", "two"])
    assert torch.equal(fused(x), plain(x))


class _Packed(Linear):
    """A layer with a product of its own, as quantized layers have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight.round(decimals=1), self.bias)


def test_a_layer_with_a_product_of_its_own_keeps_it() -> None:
    plain, fused = _adapted()
    for model in (plain, fused):
        base = model[0].base_layer
        own = _Packed(256, 320).requires_grad_(False)
        own.load_state_dict(base.state_dict())
        model[0].base_layer = own
    x = torch.randn(3, 40, 256)
    _assert_near(_results(fused, x), _results(plain, x), 2e-6)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_clients_are_each_alone(kernel: Any, dropped: bool) -> None:
    """Three clients of ranks 2, 4 and 3 with scalings of their own, padded with zeros."""
    torch.manual_seed(1)
    layer = Linear(256, 320).requires_grad_(False)
    layer.forward = FrozenProduct(layer, kernel).forward  # type: ignore[method-assign]
    x = torch.randn(6, 10, 256)
    mask = (torch.rand(6, 10, 256) > 0.3).float() * 2 if dropped else torch.ones(())
    scalings = torch.tensor([0.5, 2.0, 3.0]).view(3, 1, 1)
    down, up = torch.zeros(3, 4, 256), torch.zeros(3, 320, 4)
    for client, rank in enumerate((2, 4, 3)):
        down[client, :rank], up[client, :, :rank] = torch.randn(rank, 256), torch.randn(320, rank)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, down, up)]
    twins = [tensor.clone().requires_grad_() for tensor in (x, down, up)]
    other = leaves[0] * mask if dropped else None
    outputs = lora.apply(layer, leaves[0], other, leaves[1], leaves[2], scalings)
    parts = [
        layer(twins[0][2 * k : 2 * k + 2])
        + scalings[k] * ((twins[0] * mask)[2 * k : 2 * k + 2] @ twins[1][k].T @ twins[2][k].T)
        for k in range(3)
    ]
    expected = torch.cat(parts)
    assert torch.allclose(outputs, expected, rtol=1e-4, atol=1e-3)
    weights = torch.randn(outputs.shape)
    found = torch.autograd.grad((outputs * weights).sum(), leaves)
    wanted = torch.autograd.grad((expected * weights).sum(), twins)
    for value, gradient in zip(found, wanted, strict=True):
        assert (value - gradient).abs().max() <= 1e-5 * gradient.abs().max()
    assert not found[1][0, 2:].any() and not found[2][0, :, 2:].any()


def test_only_inputs_and_small_products_are_kept() -> None:
    """Autograd keeps x, x·Aᵀ and the factors: nothing as large as the outputs."""
    _, fused = _adapted()
    shapes: list[torch.Size] = []
    x = torch.randn(100, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: shapes.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        fused(x)
    assert sorted(map(tuple, shapes)) == [(4, 256), (100, 4), (100, 256), (320, 4)]
