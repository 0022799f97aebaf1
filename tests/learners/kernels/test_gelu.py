"""GELU by torch's kernel has the values and gradients of the modules that it stands for."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hanse.learners.kernels import gelu


@pytest.mark.parametrize("kind", gelu.SLOW)
def test_values_and_gradients_are_the_same(kind: type[torch.nn.Module]) -> None:
    slow = kind()
    fast = copy.deepcopy(slow)
    gelu.use(fast)
    x = torch.linspace(-8, 8, 1001, requires_grad=True)
    results = [(y := module(x), *torch.autograd.grad(y.sum(), x)) for module in (slow, fast)]
    for value, expected in zip(*results, strict=True):
        assert torch.allclose(value, expected, atol=2e-6)


def test_gpt2_uses_it() -> None:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(10)[None]
    expected = model(input_ids=ids).logits
    gelu.use(model)
    assert sum("forward" in vars(module) for module in model.modules()) == 2
    assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-6)
