"""Every kind of adapter: it trains, leaves the base alone, and PEFT loads what is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from hanse.data.example import IGNORED, Example
from hanse.experiment.adapter_choice import AnyAdapter
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import Data
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.bitfit import BitFit
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.peft import Peft
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read
from hanse.learners.injection.mixed import Mixed
from hanse.learners.injection.tuners.lora_xs import as_lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import layers
from learner_checks import loss, trains_together_as_alone

KINDS: dict[str, Adapter] = {
    "lora": Lora(r=2),
    "rslora": Lora(r=2, use_rslora=True),
    "dora": Lora(r=2, use_dora=True),
    "ia3": IA3(),
    "prompt_tuning": PromptTuning(3),
    "prefix_tuning": PrefixTuning(3),
    "p_tuning": PTuning(3),
    "p_tuning, lstm": PTuning(3, "LSTM", encoder_hidden_size=16),
    "houlsby": Houlsby(reduction_factor=4),
    "pfeiffer": Pfeiffer(reduction_factor=4),
    "lora_xs": LoraXS(r=4, lora_alpha=8),
    "full": Full(),
    "top layer": Full(top_layers=1),
    "vera": Peft("vera", {"r": 2, "target_modules": "all-linear"}),
    "ln_tuning": Peft("ln_tuning"),
}
ENCODERS = {name: kind for name, kind in KINDS.items() if name != "ln_tuning"}  # what they take
ENCODERS |= {"head": Head(), "bitfit": BitFit()}
MIXED = Mixed.of([Lora(r=2), Houlsby(reduction_factor=4)])
ROWS = [Example(tuple(range(k, k + 6)), tuple(range(k, k + 6))) for k in range(2, 10)]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    adapter = backbone.attach(settings, 0)
    training = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=4)
    return AdaptedModel(
        backbone, adapter, {"train": ROWS}, training, Sft(), RoundContext(0, 1, "a"), 1, {}
    )


def _frozen(backbone: Backbone) -> dict[str, Tensor]:
    return {
        n: p.detach().clone() for n, p in backbone.model.named_parameters() if "adapter0" not in n
    }


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_leaves_the_base_bit_identical(
    folder: Path, kind: str
) -> None:
    learner = _learner(folder, KINDS[kind])
    before, base = loss(learner), _frozen(learner.backbone)
    learner.fit()
    assert loss(learner) < before
    after = _frozen(learner.backbone)
    assert all(torch.equal(after[name], base[name]) for name in base)
    assert after.keys() == base.keys()
    # What travels is what PEFT would train, all of it, and nothing else.
    wanted = {id(p) for p in learner.backbone.model.parameters() if p.requires_grad}
    assert {id(p) for p in learner.parameters().values()} == wanted


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_what_is_saved_and_says_the_same(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    learner = _learner(folder, KINDS[kind])
    learner.fit()
    learner.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    with torch.no_grad():
        found = plain(input_ids=IDS).logits[0, -1]
        wanted = learner.backbone.activate(learner.adapter)(input_ids=IDS).logits[0, -1]
        bare = AutoModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits[0, -1]
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, bare)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_goes_on_as_it_was(folder: Path, kind: str, tmp_path: Path) -> None:
    learner = _learner(folder, KINDS[kind])
    learner.fit()
    learner.save(tmp_path)
    settings, tensors = read(tmp_path)
    again = _learner(folder, settings)
    live = again.parameters()
    again.load({name: tensor for name, tensor in tensors.items() if name in live})
    assert loss(again) == pytest.approx(loss(learner), rel=1e-6)  # LoRA-XS decomposes anew


def test_the_mean_of_cores_is_the_mean_of_changes(folder: Path) -> None:
    learner = _learner(folder, LoraXS(r=4, lora_alpha=8))
    model, adapter = learner.backbone.model, learner.adapter
    draw = torch.Generator().manual_seed(0)
    cores = [
        {n: torch.randn(t.shape, generator=draw) for n, t in learner.tensors().items()}
        for _ in range(3)
    ]
    weights = (0.2, 0.3, 0.5)
    mean = {n: sum(w * own[n] for w, own in zip(weights, cores, strict=True)) for n in cores[0]}
    found = layers(as_lora(model, adapter, mean)[1])
    parts = [layers(as_lora(model, adapter, own)[1]) for own in cores]
    for name, one in found.items():
        wanted = sum(w * own[name].product() for w, own in zip(weights, parts, strict=True))
        torch.testing.assert_close(one.product(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_bitfit_trains_biases_alone(tiny_gpt2: Path, tmp_path: Path) -> None:
    learner = _learner(tiny_gpt2, BitFit())
    started = learner.tensors()
    plain = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    biases = {n: p for n, p in plain.named_parameters() if n.endswith(".bias")}
    assert sum(t.numel() for t in started.values()) == sum(p.numel() for p in biases.values())
    learner.backbone.activate(learner.adapter)
    wanted = {id(p) for p in learner.backbone.model.parameters() if p.requires_grad}
    assert {id(p) for p in learner.parameters().values()} == wanted
    learner.fit()
    assert all(not torch.equal(t, started[name]) for name, t in learner.tensors().items())
    learner.save(tmp_path)
    with torch.no_grad():
        found = PeftModel.from_pretrained(plain, str(tmp_path)).eval()(input_ids=IDS).logits
        wanted_logits = learner.backbone.activate(learner.adapter)(input_ids=IDS).logits
    torch.testing.assert_close(found, wanted_logits)


TOGETHER = [
    *("lora", "rslora", "lora_xs", "ia3", "houlsby", "pfeiffer"),
    *("prompt_tuning", "p_tuning", "prefix_tuning"),
]


@pytest.mark.parametrize("kind", TOGETHER)
def test_clients_train_together_as_alone(folder: Path, kind: str) -> None:
    trains_together_as_alone(_learner(folder, KINDS[kind]), ({}, {"max_steps": 2}, {}))


@pytest.mark.parametrize(
    "kind", ["lora", "ia3", "houlsby", "pfeiffer", "prompt_tuning", "p_tuning", "head"]
)
def test_a_head_is_each_clients_own(tiny_bert: Path, kind: str) -> None:
    learner = _classifier(tiny_bert, Head() if kind == "head" else KINDS[kind], bf16=False)
    assert any("classifier" in name for name in learner.parameters())
    changes = ({}, {"max_steps": 2}, {"per_device_train_batch_size": 2})
    trains_together_as_alone(learner, changes)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_in_bfloat16_trains_each(tiny_bert: Path, kind: str) -> None:
    learner = _classifier(tiny_bert, ENCODERS[kind], bf16=True)
    start = learner.tensors()
    assert learner.fit().loss > 0
    moved = learner.tensors()
    assert all(tensor.dtype == torch.float32 for tensor in moved.values())
    assert any(not torch.equal(tensor, start[name]) for name, tensor in moved.items())


@pytest.mark.parametrize("first", ["lora", "prompt_tuning", "prefix_tuning", "full", "head"])
def test_nothing_stays_of_an_adapter_that_is_taken_out(tiny_bert: Path, first: str) -> None:
    """Not even of its head: others then begin, and answer, as in a model that never had it."""
    used = _classifier(tiny_bert, ENCODERS[first], bf16=False)
    used.fit()
    used.backbone.detach(used.adapter)
    batch = used.batch(used.examples("train"))
    for kind in ENCODERS.values():
        fresh = _classifier(tiny_bert, kind, bf16=False)
        after = _classifier(tiny_bert, kind, bf16=False, backbone=used.backbone)
        start = fresh.initial()
        assert after.initial().keys() == start.keys()
        assert all(torch.equal(tensor, start[name]) for name, tensor in after.initial().items())
        with torch.no_grad():
            torch.testing.assert_close(after.forward(batch), fresh.forward(batch))
        used.backbone.detach(after.adapter)


def _classifier(
    folder: Path, kind: Adapter, bf16: bool, backbone: Backbone | None = None
) -> AdaptedModel:
    """An encoder that puts texts into three classes."""
    backbone = backbone or load(BaseModelSettings(str(folder), bf16=bf16), classes=3)
    texts = [(tuple(range(k, k + 3 + k % 5)), k % 3) for k in range(2, 20)]
    classes = ((0,), (1,), (2,))
    rows = [Example(ids, (IGNORED,) * len(ids), classes, right) for ids, right in texts]
    settings = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=3)
    adapter, context = backbone.attach(kind, 0), RoundContext(0, 1, "a")
    return AdaptedModel(backbone, adapter, {"train": rows}, settings, Classify(), context, 1, {})


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", ["prompt_tuning", "prefix_tuning", "p_tuning", "ia3"])
def test_answers_are_those_of_plain_peft_and_the_base_answers_alone(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    learner = _learner(folder, KINDS[kind])
    for parameter in learner.parameters().values():
        parameter.data.normal_(std=3.0, generator=torch.Generator().manual_seed(1))
    learner.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def answer(model: Any) -> str:
        mask = torch.ones_like(IDS)
        said = model.generate(
            input_ids=IDS, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0
        )
        ended = learner.backbone.tokenizer.eos_token_id
        answer = said[0, IDS.shape[1] :].tolist()
        return learner.text(answer[: answer.index(ended)] if ended in answer else answer)

    alone = answer(base)
    adapted = answer(PeftModel.from_pretrained(base, str(tmp_path)).eval())
    prompt = Example((*IDS[0].tolist(), 0), (0,) * 7, prompt=6)
    assert learner.generate([prompt], 5) == [adapted]
    learner.base_only = True
    assert learner.generate([prompt], 5) == [alone]
    assert adapted != alone


def test_kinds_follow_each_other_in_one_base_model(folder: Path) -> None:
    """What a run leaves in memory is the base model for the next one, whatever that trains."""
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    with torch.no_grad():
        bare = backbone.model(input_ids=IDS).logits
    weights = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    for settings in (*KINDS.values(), MIXED, KINDS["lora"]):
        names = [backbone.attach(settings, seed) for seed in range(2)]
        for name in names:
            for parameter in backbone.parameters(name).values():
                parameter.data.fill_(0.3)
        for name in names:
            backbone.detach(name)
        assert {n: p.shape for n, p in backbone.model.named_parameters()} == {
            n: p.shape for n, p in weights.items()
        }
        with torch.no_grad():
            assert torch.equal(backbone.model(input_ids=IDS).logits, bare)
        assert all(torch.equal(p, weights[n]) for n, p in backbone.model.named_parameters())


def test_a_name_of_peft_is_enough() -> None:
    found = AnyAdapter.model_validate({"vera": {"r": 2}}).fresh
    assert found == Peft("vera", {"r": 2})
    assert AnyAdapter.model_validate("ia3").fresh == IA3()
    # PEFT's own LoRA is written as what it is, which is not ours.
    choice = AnyAdapter.model_validate({"peft": {"method": "lora", "settings": {"r": 2}}})
    written = Experiment(adapter=choice, data=Data(path="reasoning")).resolved()["adapter"]
    assert AnyAdapter.model_validate(written).fresh == Peft("lora", {"r": 2})
