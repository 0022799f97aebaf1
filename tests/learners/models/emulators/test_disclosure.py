"""The distance of a middle from the whole model's, and the sentence on it."""

import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from hanse import registry
from hanse.learners.models.emulators.compressor import FOLDER, Compressor
from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.compressors.low_rank import LowRank
from hanse.learners.models.emulators.compressors.quantized import Quantized
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.disclosure import difference, sentence
from hanse.learners.models.emulators.record import DistillationRecord, EmulatorRecord, Source
from hanse.learners.models.emulators.shrink import Emulator, shrink
from hanse.learners.models.layers import layer_list

DISTILLED = DistillationRecord(settings={}, rows=3, first={"lm": 2.0}, last={"lm": 1.0})


def whole() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def made(model: Any, compressor: Compressor) -> Emulator:
    return shrink(model, Cut(1, 3, 1), compressor)


def record(compressor: str, **fields: Any) -> EmulatorRecord:
    source = Source(sha256="0" * 64, model_type="llama", layers=5, hidden_size=8, parameters=9)
    layers = (0, 1, 2, 3, 4)
    return EmulatorRecord(
        source=source, bottom=1, top=1, compressor={compressor: {}}, layers=layers, **fields
    )


@pytest.mark.parametrize(
    ("compressor", "least", "most"),
    [
        (LayerDrop(drop=0.5), 0.0, 0.0),
        (Quantized("int8"), 1e-3, 0.02),
        (Quantized("nf4"), 0.05, 0.15),
        (LowRank(0.9), 0.2, math.sqrt(0.1)),
        (LowRank(0.3), 0.7, math.sqrt(0.7)),
    ],
    ids=str,
)
def test_the_distance_of_each_compressor(compressor: Compressor, least: float, most: float) -> None:
    model = whole()
    assert least <= difference(model, made(model, compressor)) <= most


def test_the_distance_of_layers_that_were_changed() -> None:
    """It compares a kept layer with its own one in the whole model, and norms do not count."""
    model = whole()
    emulator = made(model, LayerDrop(keep=2))
    with torch.no_grad():
        for layer in emulator.middle:
            for parameter in layer.parameters():
                parameter.mul_(1.25 if parameter.dim() > 1 else 3.0)
    assert difference(model, emulator) == pytest.approx(0.25, rel=1e-5)
    layer_list(model)[1][2].mlp.down_proj.weight.data.zero_()  # a layer that was left out
    assert difference(model, emulator) == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("name", registry.names(FOLDER))
def test_each_compressor_has_its_sentence(name: str) -> None:
    said = sentence(record(name, middle_error=0.0123), "models/small")
    assert said.startswith("the middle of models/small has ") and "every client sees" in said
    assert "are 0.012 of their norm away" in said and "distillation" not in said
    later = sentence(record(name, middle_error=0.5, distillation=DISTILLED))
    assert later.startswith("the middle has ") and "but for a distillation, which" in later
    assert "--texts" not in later


def test_a_record_without_the_distance_and_of_an_unknown_compressor() -> None:
    assert "away" not in sentence(record("quantized"))
    assert "nearly the same" in sentence(record("quantized"))
    assert "is not known here" in sentence(record("x.py:Evil"))
