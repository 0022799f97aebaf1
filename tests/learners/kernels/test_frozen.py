"""Products with frozen weights by each kernel have torch's values and gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Linear
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from hanse.learners.kernels import frozen
from hanse.learners.kernels.frozen import FrozenProduct

CPU = torch.device("cpu")
KERNELS = frozen.kernels(CPU)
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def _layer(kind: type, dtype: torch.dtype = torch.float32, bias: bool = True) -> Any:
    torch.manual_seed(3)
    layer = Conv1D(320, 256) if kind is Conv1D else Linear(256, 320, bias=bias)
    return layer.to(dtype).requires_grad_(False)


def _both(layer: Any, x: Tensor) -> list[Tensor]:
    """The outputs of a layer, and the gradient of a weighted sum of them by the inputs."""
    leaf = x.clone().requires_grad_()
    outputs = layer(leaf)
    weights = torch.linspace(-1, 1, outputs.shape[-1]).to(outputs.dtype)
    return [outputs, *torch.autograd.grad((outputs * weights).sum(), leaf)]


def _assert_near(values: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for value, wanted in zip(values, expected, strict=True):
        assert value.dtype == wanted.dtype and value.shape == wanted.shape
        assert (value - wanted).abs().max() <= NEAR[dtype] * wanted.abs().max()


def test_a_processor_with_onednn_has_its_kernels() -> None:
    assert "torch" in KERNELS
    assert ("packed" in KERNELS) == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Linear, Conv1D])
@pytest.mark.parametrize("kernel", KERNELS)
def test_values_and_gradients_are_torchs(kernel: Any, kind: type, dtype: torch.dtype) -> None:
    layer = _layer(kind, dtype)
    for shape in ((5, 7, 256), (1, 256), (300, 256)):
        x = torch.randn(shape).to(dtype)
        expected = _both(layer, x)
        layer.forward = FrozenProduct(layer, kernel).forward
        _assert_near(_both(layer, x), expected, dtype)
        del layer.forward


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_rows_and_no_bias(kernel: Any) -> None:
    layer = _layer(Linear, bias=False)
    x = torch.randn(4, 256)
    expected = _both(layer, x)
    layer.forward = FrozenProduct(layer, kernel).forward
    _assert_near(_both(layer, x), expected, torch.float32)
    assert layer(torch.empty(0, 3, 256)).shape == (0, 3, 320)


@pytest.mark.parametrize("kernel", KERNELS)
def test_another_weight_is_used_at_once(kernel: Any) -> None:
    layer = _layer(Linear)
    layer.forward = FrozenProduct(layer, kernel).forward
    x = torch.randn(4, 256)
    before = layer(x)
    layer.weight.data = layer.weight.data * 2
    assert torch.allclose(layer(x) - layer.bias, 2 * (before - layer.bias), atol=1e-5)
    with torch.no_grad():
        layer.weight.mul_(0.5)
    assert torch.allclose(layer(x), before, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_that_is_trained_computes_as_before(kernel: Any) -> None:
    layer = _layer(Linear)
    layer.forward = FrozenProduct(layer, kernel).forward
    layer.bias.requires_grad_(True)
    layer(torch.randn(4, 256)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((320,), 4.0))


def test_a_copy_has_a_product_of_its_own_that_is_torchs() -> None:
    layer = _layer(Linear)
    layer.forward = FrozenProduct(layer, KERNELS[-1]).forward
    other = copy.deepcopy(layer)
    product = frozen.of(other)
    assert product is not None and product.layer is other and product.kernel == "torch"
    other.weight.data.zero_()
    x = torch.randn(4, 256)
    assert torch.equal(other(x), other.bias.expand(4, -1)) and layer(x).abs().max() > 0.1


def _llama(**sizes: int) -> Any:
    config = LlamaConfig(vocab_size=50, num_hidden_layers=2, num_attention_heads=4, **sizes)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def _gpt2() -> Any:
    config = GPT2Config(vocab_size=50, n_embd=256, n_layer=2, n_head=4, n_positions=32)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


@pytest.mark.skipif("packed" not in KERNELS, reason="needs oneDNN")
@pytest.mark.parametrize("build", [_gpt2, lambda: _llama(hidden_size=256, intermediate_size=512)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_large_layers_of_the_blocks_use_the_kernel(kernel: Any, build: Any) -> None:
    torch.manual_seed(0)
    model = build()
    ids = torch.arange(20).view(2, 10)
    expected = model(input_ids=ids, use_cache=False).logits
    frozen.use(model, kernel)
    patched = [module for module in model.modules() if "forward" in vars(module)]
    assert len(patched) == {"torch": 0}.get(kernel, len(patched)) and bool(patched) == (
        kernel != "torch"
    )
    assert frozen.size(model) == sum(
        module.weight.nbytes
        for name, module in model.named_modules()
        if type(module) in (Linear, Conv1D) and name != "lm_head"
    )
    assert frozen.packed_bytes(model) == 0
    outputs = model(input_ids=ids, use_cache=False).logits
    assert (outputs - expected).abs().max() < 1e-5
    assert frozen.packed_bytes(model) == (frozen.size(model) if kernel == "packed" else 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_small_layers_stay_torchs(kernel: Any) -> None:
    model = _llama(hidden_size=32, intermediate_size=64)
    frozen.use(model, kernel)
    assert not any("forward" in vars(module) for module in model.modules())
    assert frozen.size(model) == 0
