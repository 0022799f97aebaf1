"""Weights are packed for faster products only if memory is ample."""

import logging
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hanse.learners import load
from hanse.learners.kernels import frozen
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings

PACKED = ComputeMode(False, products="packed")


def _model() -> Any:
    config = LlamaConfig(
        vocab_size=50,
        num_hidden_layers=1,
        num_attention_heads=4,
        hidden_size=256,
        intermediate_size=512,
    )
    return LlamaForCausalLM(config).requires_grad_(False)


@pytest.mark.parametrize("products", ["auto", "packed"])
@pytest.mark.parametrize("ample", [False, True])
def test_packed_weights_take_a_quarter_of_the_free_memory_at_most(
    products: Any,
    ample: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, settings = _model(), BaseModelSettings("m", products=products)
    least = 4 * 2 * frozen.size(model)
    assert least == 8 * 4 * (4 * 256 * 256 + 3 * 256 * 512)
    monkeypatch.setattr(load, "available_memory", lambda: least - (not ample))
    with caplog.at_level(logging.WARNING):
        mode = load._in_memory(PACKED, model, settings)
    packs = ample or products == "packed"
    assert mode == ComputeMode(False, products="packed" if packs else "onednn")
    assert ("model.products=packed" in caplog.text) != packs


def test_other_kernels_need_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "available_memory", lambda: 0)
    mode = ComputeMode(True, products="onednn")
    assert load._in_memory(mode, torch.nn.Linear(1, 1), BaseModelSettings("m")) == mode
