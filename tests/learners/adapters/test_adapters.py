"""Adapters: what is trained, and which of them can be continued."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

from hanse.errors import UserError
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.peft import methods
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.backbone import NO_ADAPTER, Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read, save
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings


@pytest.fixture
def backbone(tiny_llama: Path) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False))


def test_everything_that_is_put_in_is_trained(backbone: Backbone) -> None:
    name = backbone.attach(Lora(r=2, target_modules=("embed_tokens", "q_proj")), seed=0)
    found = backbone.parameters(name)
    wanted = [p for p in backbone.model.parameters() if p.requires_grad]
    assert {id(p) for p in found.values()} == {id(p) for p in wanted}
    assert any("embedding" in key for key in found)


def test_the_seed_draws_the_adapter(tiny_llama: Path) -> None:
    def drawn(seed: int) -> float:
        backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
        found = backbone.parameters(backbone.attach(Lora(r=2), seed))
        assert all(not p.any() for key, p in found.items() if "lora_B" in key)
        return float(sum(p.detach().sum() for p in found.values()))

    assert drawn(1) == drawn(1) != drawn(2)


def test_nothing_is_dropped_where_nothing_is_trained(tiny_llama: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
    name = backbone.attach(Lora(r=4, lora_dropout=0.5), 0)
    for parameter in backbone.parameters(name).values():
        parameter.data.fill_(0.1)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        first, second = (backbone.activate(name)(input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("targets", [None, ("q_proj", "down_proj"), "all-linear"])
@pytest.mark.parametrize("beside", [False, True])
def test_only_the_named_layers_get_an_adapter(
    backbone: Backbone, targets: tuple[str, ...] | str | None, beside: bool
) -> None:
    everywhere = backbone.attach(Lora(r=2, target_modules=targets), 0) if beside else ""
    name = backbone.attach(Lora(r=2, target_modules=targets, layers_to_transform=(1,)), 0)
    if not beside:
        everywhere = backbone.attach(Lora(r=2, target_modules=targets), 0)
    wanted = {key for key in backbone.parameters(everywhere) if ".layers.1." in key}
    assert set(backbone.parameters(name)) == wanted != set()


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (Lora(layers_to_transform=(0, 2)), "names 2, but the model's layers are 0 to 1"),
        (
            Lora(layers_to_transform=(1,), target_modules=r".*q_proj"),
            "cannot go with the regular expression",
        ),
        (
            Lora(layers_to_transform=(1,), target_modules=("embed_tokens",)),
            "are not in the model's layers; it has .*q_proj",
        ),
    ],
)
def test_layers_that_cannot_be_chosen(backbone: Backbone, lora: Lora, said: str) -> None:
    with pytest.raises(UserError, match=said):
        backbone.attach(lora, 0)


@pytest.mark.parametrize(
    "adapter",
    [Lora(r=2), LoraXS(r=4), IA3(), Houlsby(reduction_factor=4), Pfeiffer(reduction_factor=4)],
)
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2"])
def test_every_adapter_of_layers_can_be_put_into_the_upper_ones(
    request: pytest.FixtureRequest, model: str, adapter: Any, tmp_path: Path
) -> None:
    def names(settings: Adapter) -> set[str]:
        backbone = load(BaseModelSettings(str(request.getfixturevalue(model)), bf16=False))
        return set(backbone.parameters(backbone.attach(settings, 0)))

    everywhere, upper = names(adapter), replace(adapter, layers_to_transform=(1,))
    wanted = {name for name in everywhere if ".1." in name}
    assert names(upper) == wanted != everywhere
    # So it is as it is read again.
    backbone = load(BaseModelSettings(str(request.getfixturevalue(model)), bf16=False))
    name = backbone.attach(upper, 0)
    live = {key: p.detach() for key, p in backbone.parameters(name).items()}
    save(backbone.model, name, live, tmp_path)
    settings, tensors = read(tmp_path)
    assert names(settings) == tensors.keys()
    assert {key.rpartition(".")[0] for key in tensors if ".0." in key} == set()


def test_an_adapter_takes_no_living_ones_name(tiny_llama: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
    first, second = (backbone.attach(IA3(), seed) for seed in (0, 1))
    backbone.detach(first)
    before = backbone.initial(second)
    assert backbone.attach(IA3(), 2) != second
    after = backbone.initial(second)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len(backbone.adapters.keys() - {NO_ADAPTER}) == 2


@pytest.mark.parametrize("adapter", [LoraXS(), IA3(), Houlsby(), Pfeiffer()])
def test_layers_that_are_not_there(backbone: Backbone, adapter: Any) -> None:
    with pytest.raises(UserError, match="names 2, but the model's layers are 0 to 1"):
        backbone.attach(replace(adapter, layers_to_transform=(0, 2)), 0)


@pytest.mark.parametrize("layers", [None, (1,)])
def test_what_is_read_is_what_was_saved(
    backbone: Backbone, tmp_path: Path, layers: tuple[int, ...] | None
) -> None:
    targets = ("q_proj", "v_proj")
    settings = Lora(r=3, lora_alpha=7, target_modules=targets, layers_to_transform=layers)
    name = backbone.attach(settings, seed=0)
    live = {key: p.detach() for key, p in backbone.parameters(name).items()}
    save(backbone.model, name, live, tmp_path)
    found, tensors = read(tmp_path)
    assert found == settings
    assert {key: t.tolist() for key, t in tensors.items()} == {
        key: t.tolist() for key, t in live.items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "NEW"}, "peft_type 'NEW', which the installed PEFT does not know"),
        ({"alpha_pattern": {"q_proj": 4}}, "has alpha_pattern"),
        ({"rank_pattern": {"q_proj": 4}}, "has alpha_pattern: {}"),
        ({"rank_pattern": {"(a+)+": 4}}, "rank_pattern "),
        ({"rank_pattern": [3]}, "rank_pattern "),
        ({"use_bdlora": True}, "has use_bdlora"),
        ({"bias": "all"}, "has bias"),
        ({"layers_to_transform": [1], "layers_pattern": "h"}, "has layers_pattern"),
        ({"layers_to_transform": [-1]}, "layers_to_transform "),
        ({"r": None}, "r "),
        ({"r": "x"}, "r "),
    ],
)
def test_other_adapters_are_refused(
    backbone: Backbone, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    name = backbone.attach(Lora(r=2), seed=0)
    live = {key: p.detach() for key, p in backbone.parameters(name).items()}
    save(backbone.model, name, live, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        read(tmp_path)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_ranks_of_single_matrices(backbone: Backbone, tmp_path: Path, use_rslora: bool) -> None:
    """The longest name that fits decides, and α/r (or α/√r) is the same for all matrices."""
    ranks = {"up_proj": 6, "layers.1.mlp.up_proj": 3, "q_proj": 5}
    targets = ("q_proj", "up_proj", "v_proj")
    settings = Lora(
        r=2, lora_alpha=6, target_modules=targets, rank_pattern=ranks, use_rslora=use_rslora
    )
    name = backbone.attach(settings, seed=0)
    live = {key: p.detach() for key, p in backbone.parameters(name).items()}
    assert {key.split("layers.")[1]: len(t) for key, t in live.items() if "lora_A" in key} == {
        f"{layer}.{matrix}.lora_A.weight": rank
        for layer, up in ((0, 6), (1, 3))
        for matrix, rank in (("mlp.up_proj", up), ("self_attn.q_proj", 5), ("self_attn.v_proj", 2))
    }
    scalings = backbone.adapters[name].layer_scalings
    assert len(scalings) == 6
    assert [*scalings.values()] == pytest.approx([settings.scaling] * 6)
    save(backbone.model, name, live, tmp_path)
    found, tensors = read(tmp_path)
    assert found == settings
    assert tensors.keys() == live.keys()


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (
            {"k_proj": 2},
            r"rank_pattern\.k_proj gives a rank to no adapted matrix; .* q_proj, v_proj",
        ),
        ({"proj": 2}, r"rank_pattern\.proj gives a rank to no adapted matrix"),
        ({"v_proj": 17}, r"rank_pattern\.v_proj is 17, but such matrices have at most 16"),
        ({"q_proj": 65}, r"rank_pattern\.q_proj is 65, but the model's matrices have at most"),
    ],
)
def test_ranks_that_no_matrix_has(backbone: Backbone, ranks: dict[str, int], said: str) -> None:
    before = len(backbone.adapters)
    with pytest.raises(UserError, match=said):
        backbone.attach(Lora(target_modules=("q_proj", "v_proj"), rank_pattern=ranks), seed=0)
    assert len(backbone.adapters) == before


@pytest.mark.parametrize(("written", "meant"), [(1, (1,)), (0, (0,)), ([], None)])
def test_layers_as_peft_may_write_them(
    backbone: Backbone, tmp_path: Path, written: object, meant: tuple[int, ...] | None
) -> None:
    name = backbone.attach(Lora(r=2), seed=0)
    live = {key: p.detach() for key, p in backbone.parameters(name).items()}
    save(backbone.model, name, live, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layers_to_transform": written}))
    assert read(tmp_path)[0].layers_to_transform == meant


def test_a_folder_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no adapter that can be read"):
        read(tmp_path)


def test_the_names_of_methods_are_those_that_peft_knows() -> None:
    known = {kind.value.lower() for kind in PeftType if kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert methods() == sorted(known)
