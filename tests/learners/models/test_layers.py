"""Which layers a model has, and which of them an adapter leaves alone."""

from pathlib import Path

import pytest
import torch

from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.layers import decoder_layers, frozen_depth, replaced
from hanse.learners.models.settings import BaseModelSettings


@pytest.mark.parametrize(
    ("lora", "depth"),
    [
        (Lora(), 0),
        (Lora(layers_to_transform=(0,)), 0),
        (Lora(layers_to_transform=(1,)), 1),
        (Lora(target_modules=r".*layers\.1\.mlp\.down_proj|lm_head"), 1),
        (Lora(target_modules=("lm_head",)), 2),
        (Lora(target_modules=("embed_tokens", "lm_head")), 0),
    ],
)
def test_how_many_layers_are_below_an_adapter(tiny_llama: Path, lora: Lora, depth: int) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
    name = backbone.attach(lora, 0)
    assert frozen_depth(backbone.model, backbone.parameters(name).values()) == depth


def test_a_model_without_a_list_of_layers_has_none(tiny_llama: Path) -> None:
    model = load(BaseModelSettings(str(tiny_llama), bf16=False)).model
    model.config.num_hidden_layers = 3  # not what the list holds
    assert decoder_layers(model)[1] == ()
    assert frozen_depth(model, model.parameters()) == 0


def test_replaced_layers_are_themselves_again() -> None:
    plain, patched = torch.nn.Identity(), torch.nn.Identity()
    vars(patched)["forward"] = own = lambda x: -x
    x = torch.ones(())
    with pytest.raises(KeyboardInterrupt), replaced([plain, patched], lambda _: x + 6):
        assert plain(x) == patched(x) == 7
        raise KeyboardInterrupt
    assert plain(x) == 1 and "forward" not in vars(plain)
    assert patched(x) == -1 and vars(patched)["forward"] is own
