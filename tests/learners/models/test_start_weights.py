"""Start weights come back from the model's files, and only those that the files lack are kept."""

from pathlib import Path

import pytest
import torch

from hanse.errors import UserError
from hanse.learners.injection.trained_heads import draw_in_place
from hanse.learners.load import load
from hanse.learners.models import start_weights
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.models.start_weights import StartWeights, live


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2", "tiny_bert"])
def test_changed_weights_are_restored(
    model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_weights, "SLICE", 500)  # bytes: some rows of most tensors
    folder: Path = request.getfixturevalue(model)
    settings = BaseModelSettings(str(folder), bf16=False, products="torch", device="cpu")
    encoder = model == "tiny_bert"
    backbone = load(settings, classes=3 if encoder else 0)
    draw_in_place(backbone.model, backbone.fresh, seed=5)
    start = StartWeights.of(backbone.model, backbone.name, backbone.fresh)
    before = {name: weight.clone() for name, weight in live(backbone.model).items()}
    assert start.kept.keys() == ({"classifier.weight", "classifier.bias"} if encoder else set())
    for weight in live(backbone.model).values():
        weight.add_(1)
    start.restore(backbone.model)
    after = live(backbone.model)
    assert after.keys() == before.keys() == start.places.keys() | start.kept.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_weight_that_the_files_lack_is_refused_unless_it_is_new(tiny_llama: Path) -> None:
    settings = BaseModelSettings(str(tiny_llama), bf16=False, products="torch", device="cpu")
    backbone = load(settings)
    live(backbone.model)["model.norm.weight"].add_(1)
    with pytest.raises(UserError, match=r"have model\.norm\.weight under another name or in"):
        StartWeights.of(backbone.model, backbone.name)
    start = StartWeights.of(backbone.model, backbone.name, ["model.norm"])
    assert start.kept.keys() == {"model.norm.weight"}
    assert not start_weights.within(backbone.model, ["model.nor"])


def test_a_new_head_is_drawn_by_the_seed_alone(tiny_bert: Path) -> None:
    heads = []
    for seed in (5, 5, 6):
        settings = BaseModelSettings(str(tiny_bert), bf16=False, products="torch", device="cpu")
        backbone = load(settings, classes=3)
        draw_in_place(backbone.model, backbone.fresh, seed)
        heads.append(live(backbone.model)["classifier.weight"])
        assert not live(backbone.model)["classifier.bias"].any()
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert 0.01 < float(heads[0].std()) < 0.03
