"""RMSNorm as one operation has the values and gradients of the modules that it stands for."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import Module, Parameter, Sequential
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from hanse.learners.kernels import rms_norm

NEAR = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


def _pair(kind: type[Module], dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A module of a frozen weight, and the same as one operation."""
    torch.manual_seed(2)
    module: Any = kind(48)
    module.weight.data = torch.rand(48) + 0.5
    slow = Sequential(module.to(dtype)).requires_grad_(False)
    fast = copy.deepcopy(slow)
    rms_norm.use(fast)
    return slow, fast


def _both(module: Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    outputs = module(leaf)
    weights = torch.linspace(-1, 1, 48).to(x.dtype)
    return outputs, torch.autograd.grad((outputs * weights).sum(), leaf)[0]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
def test_values_and_gradients_are_the_same(kind: Any, dtype: torch.dtype) -> None:
    slow, fast = _pair(kind, dtype)
    assert "forward" in vars(fast[0])
    x = 5 * torch.randn(2, 7, 48).to(dtype)
    for value, expected in zip(_both(fast, x), _both(slow, x), strict=True):
        assert value.dtype == expected.dtype
        assert (value - expected).abs().max() <= NEAR[dtype] * expected.abs().max()


def test_another_formula_is_left_as_it_is() -> None:
    """Gemma's weight is added to one."""
    slow, fast = _pair(GemmaRMSNorm)
    assert "forward" not in vars(fast[0])
    x = torch.randn(3, 48)
    assert torch.equal(fast(x), slow(x))


class _SquaredRMSNorm(LlamaRMSNorm):
    """A formula that differs in its values alone."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states).square()


def test_a_class_with_other_values_is_left_as_it_is() -> None:
    assert "forward" not in vars(_pair(_SquaredRMSNorm)[1][0])


def test_a_trained_weight_gets_its_gradient() -> None:
    slow, fast = _pair(LlamaRMSNorm)
    x = torch.randn(3, 48)
    for module in (slow, fast):
        module[0].weight = Parameter(module[0].weight)
        module(x).sum().backward()
    assert torch.equal(fast[0].weight.grad, slow[0].weight.grad)


def test_a_copy_computes_with_its_own_weight() -> None:
    fast = _pair(LlamaRMSNorm)[1]
    other = copy.deepcopy(fast)
    other[0].weight.data.zero_()
    x = torch.randn(3, 48)
    assert not other(x).any() and fast(x).any()
