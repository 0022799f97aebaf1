"""Names of an emulator's tensors in the whole model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hanse.errors import UserError
from hanse.learners.models.emulators.places import names_in_whole, renumbered
from hanse.planning import emulator as planning
from tiny_models import save_llama


def test_numbers_behind_the_prefix_alone_are_changed() -> None:
    names = ["m.layers.0.q.1.A", "m.layers.3.q.A", "m.layers.10.layers.1.A"]
    layers = [0, 1, 5, 7, 8, 9, 12, 13, 14, 15, 29]
    assert renumbered(names, "m.layers", layers) == {
        "m.layers.0.q.1.A": "m.layers.0.q.1.A",
        "m.layers.3.q.A": "m.layers.7.q.A",
        "m.layers.10.layers.1.A": "m.layers.29.layers.1.A",
    }


@pytest.mark.parametrize("name", ["m.norm.weight", "m.layers.weight", "m.layers.x.A", "layers.0.A"])
def test_a_tensor_outside_the_layers_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is in no layer"):
        renumbered([name], "m.layers", [0, 1])


def test_the_whole_model_must_train_the_same_tensors_in_its_own_layers(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "emulator"
    save_llama(whole, layers=6)
    planning.make(str(whole), folder, 1, 1, {"layer_drop": {"keep": 1}}, None)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tensors = {"model.layers.0.q.A": torch.zeros(2, 3), "model.layers.2.q.A": torch.zeros(2, 3)}
    own = {"model.layers.0.q.A": torch.ones(2, 3), "model.layers.5.q.A": torch.ones(2, 3)}
    found = names_in_whole(str(folder), model, tensors, own)
    assert found == dict(zip(tensors, own, strict=True))
    for other in (tensors, {**own, "model.layers.5.q.A": torch.ones(2, 4)}):
        with pytest.raises(UserError, match=r"model\.layers\.\d\.q\.A"):
            names_in_whole(str(folder), model, tensors, other)
    with pytest.raises(UserError, match="is no emulator"):
        names_in_whole(str(whole), model, tensors, own)
