"""Quantized updates of real adapters: every trained tensor of every architecture is among them."""

from pathlib import Path

import pytest
import torch

from hanse import registry
from hanse.federation.messages import Update
from hanse.federation.pipeline import Pipeline
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import layout

# The error ÷ the largest number of a block, which is at most that of its tensor.
BOUNDS = {
    "bf16": 2**-8,
    "fp16": 2**-11,
    "int8": 1 / 254,
    "int4": 1 / 14,
    "nf4": 0.152,
    "sign": 1.0,
}
SLACK = 1e-6  # of arithmetic in float32
CONTEXT = RoundContext(0, 1, "a")


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2", "tiny_bert"])
def test_every_trained_tensor_is_quantized(model: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(model)
    classes = 2 if model == "tiny_bert" else 0
    backbone = load(BaseModelSettings(str(folder), bf16=False), classes=classes)
    adapter = backbone.attach(Lora(r=3, target_modules="all-linear"), seed=0)
    trained = backbone.parameters(adapter)
    assert len(trained) == sum(p.requires_grad for p in backbone.model.parameters()) >= 16
    draw = torch.Generator().manual_seed(0)
    update = {name: 1e-3 * torch.randn(p.shape, generator=draw) for name, p in trained.items()}
    for name, bound in BOUNDS.items():
        pipeline = Pipeline("upload", (registry.build("federation/compression", name),))
        message = pipeline.encode(Update(update), {}, {}, CONTEXT)
        result = pipeline.decode(message, {}, CONTEXT, layout(update)).tensors
        assert layout(result).keys() == update.keys()
        for key, tensor in update.items():
            error = (result[key] - tensor).abs().max()
            assert 0 < error <= (bound + SLACK) * tensor.abs().max(), (name, key)
