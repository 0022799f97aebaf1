"""Adapters that cannot be put into a model: one sentence, and a way out."""

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load as load_experiment
from hanse.learners.adapters.bitfit import BitFit
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.peft import Peft, methods
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Peft("veera"), "PEFT has no method 'veera' .did you mean 'vera'"),
        (Houlsby(non_linearity="swich"), "no non_linearity 'swich' .did you mean 'swish'"),
        (Peft("vera", {"rank": 2}), "vera has no setting 'rank'"),
        (BitFit(), "a llama model has none; choose another adapter"),
        (Full(freeze_layers=3), "asks for 3 layers, but the model has 2"),
        (Full(top_layers=3), "asks for 3 layers, but the model has 2"),
        (PTuning(encoder_num_layers=3), "are settings of an LSTM, but the encoder is an MLP"),
        (PTuning(encoder_dropout=0.1), "are settings of an LSTM, but the encoder is an MLP"),
        (PTuning(3, "LSTM", 8, 1, 0.1), "works between the layers of an LSTM, and there is one"),
        (Peft("adalora", {"total_step": 9}), "has to move its ranks .* choose another adapter"),
        (
            Peft("adaption_prompt"),
            "adaption_prompt cannot .* in PEFT are adapter_layers, adapter_len",
        ),
        (Peft("trainable_tokens"), "nothing would be trained; change its settings, .*indices"),
        (Peft("vera", {"target_modules": ["q_porj"]}), "linear layers are q_proj, k_proj"),
        (Houlsby(target_modules=("embed_tokens",)), "embed_tokens is no linear layer; .* q_proj"),
        (LoraXS(target_modules=("norm",)), "norm is no linear layer; .* choose another"),
        (IA3(target_modules=("k_proj",), feedforward_modules=("v_proj",)), "should be a subset"),
    ],
)
def test_what_cannot_be_is_refused(tiny_llama: Path, settings: Adapter, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(BaseModelSettings(str(tiny_llama), bf16=False)).attach(settings, 0)


NOWHERE: list[Adapter] = [
    Lora(target_modules=("k_porj",)),
    Lora(target_modules=("k_porj",), layers_to_transform=(1,)),
    LoraXS(target_modules=("k_porj",)),
    IA3(target_modules=("k_porj",), feedforward_modules=()),
    IA3(target_modules=("k_porj",), layers_to_transform=(1,)),
    Houlsby(target_modules=("k_porj",)),
    Houlsby(target_modules=("k_porj",), layers_to_transform=(1,)),
    Pfeiffer(target_modules=r".*\.k_porj"),
]


@pytest.mark.parametrize("settings", NOWHERE)
@pytest.mark.parametrize(
    ("model", "names"),
    [("tiny_llama", "q_proj, k_proj"), ("tiny_gpt2", "c_attn"), ("tiny_bert", "query, key")],
)
def test_modules_that_are_not_there(
    request: pytest.FixtureRequest, model: str, names: str, settings: Adapter
) -> None:
    classes = 2 if model == "tiny_bert" else 0
    backbone = load(
        BaseModelSettings(str(request.getfixturevalue(model)), bf16=False), classes=classes
    )
    with pytest.raises(UserError, match=rf"k_porj.* are not in .*; it has .*{names}"):
        backbone.attach(settings, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Lora(), "no default target_modules for this model; name some of: q_proj"),
        (IA3(), "no default target_modules for this model; name some of: q_proj"),
        (IA3(layers_to_transform=(1,)), "no default target_modules for this model; name some of"),
        (Houlsby(), "parts of a strange layer are not known; name .* some of q_proj"),
        (Pfeiffer(layers_to_transform=(1,)), "parts of a strange layer are not known; name"),
    ],
)
def test_an_architecture_that_nobody_knows(
    tiny_llama: Path, settings: Adapter, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
    for config in (backbone.model.config, type(backbone.model.config)):
        monkeypatch.setattr(config, "model_type", "strange")
    with pytest.raises(UserError, match=said):
        backbone.attach(settings, 0)


def test_prefixes_cannot_be_computed_again(tiny_llama: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, gradient_checkpointing=True))
    with pytest.raises(UserError, match=r"set model\.gradient_checkpointing: false, or choose"):
        backbone.attach(PrefixTuning(3), 0)


@pytest.mark.filterwarnings("ignore")  # PEFT's, of its own methods
@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2"])
def test_each_method_of_peft_is_put_in_or_refused(
    request: pytest.FixtureRequest, model: str, method: str
) -> None:
    """No setting is given, which few of them like; a learner without gradients would be worse."""
    backbone = load(BaseModelSettings(str(request.getfixturevalue(model)), bf16=False))
    try:
        name = backbone.attach(Peft(method), 0)
    except UserError:
        return
    backbone.activate(name)(input_ids=IDS).logits.square().sum().backward()
    wanted = {id(p) for p in backbone.model.parameters() if p.requires_grad}
    assert {id(p) for p in backbone.parameters(name).values()} == wanted != set()


def test_a_rank_that_would_fill_memory_is_refused_before_factors_are_made(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(LoraLayer, "update_layer", lambda *args, **kwargs: made.append(args))
    with pytest.raises(UserError, match=r"adapter.lora.r is 65536, but the model's matrices have"):
        simulate(load_experiment(experiment_file, ["adapter.lora.r=65536"]))
    assert not made
