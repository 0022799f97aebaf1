"""Adapters of several kinds on disk: PEFT, and a later run, make of them what was trained."""

import json
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BertConfig, RobertaConfig, RobertaModel

from clients import SETTINGS, rows
from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.backbone import Backbone
from hanse.learners.injection import reopened
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS, folders
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.sft import Sft
from hanse.randomness import RoundContext
from hanse.reports.loading_snippet import usage
from hanse.tensors import low_rank

SIZE = 0.3  # of the factors: far from their start, where most of them do nothing
# Linear layers that every kind is put into, in attention and in the feed-forward part.
SHARED = {
    "tiny_llama": r".*\.(v_proj|o_proj|up_proj|down_proj)",
    "tiny_gpt2": r".*\.(c_attn|c_proj|c_fc)",
    "tiny_bert": r".*\.layer\.\d+\.(attention\.self\.value|attention\.output\.dense|output\.dense)",
}
INNER = {"tiny_llama": r".*\.down_proj", "tiny_gpt2": r".*mlp\.c_proj", "tiny_bert": "nowhere"}
MIXTURES = [
    *permutations(("lora", "ia3")),
    *permutations(("lora", "houlsby")),
    *permutations(("ia3", "pfeiffer")),
    ("lora", "ia3", "houlsby"),
    ("pfeiffer", "lora", "ia3"),
    ("usual ia3", "usual lora"),
    ("usual houlsby", "upper lora", "upper ia3"),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of PEFT's own calls
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # as the card says
]


def _kind(called: str, name: str) -> Adapter:
    places = SHARED[name]
    kinds: dict[str, Adapter] = {
        "lora": Lora(r=3, lora_alpha=7, target_modules=places),
        "ia3": IA3(places, INNER[name]),
        "houlsby": Houlsby(4.0, target_modules=places),
        "pfeiffer": Pfeiffer(4.0, target_modules=places),
        "usual lora": Lora(r=2),
        "usual ia3": IA3(),
        "usual houlsby": Houlsby(4.0),
        "upper lora": Lora(r=2, layers_to_transform=(1,)),
        "upper ia3": IA3(layers_to_transform=(1,)),
    }
    return kinds[called]


def _backbone(request: pytest.FixtureRequest, name: str) -> Backbone:
    classes = 3 if name == "tiny_bert" else 0
    path = str(request.getfixturevalue(name))
    return load(BaseModelSettings(path, bf16=False, device="cpu"), classes=classes)


def _learner(backbone: Backbone, adapter: Adapter) -> AdaptedModel:
    """A learner whose tensors are as they began."""
    examples, objective = rows(1, 6), Sft()
    if not backbone.head.generates_text:
        ids = [example.ids for example in examples]
        examples = [Example(i, (IGNORED,) * len(i), ((0,), (1,), (2,)), i[0] % 3) for i in ids]
        objective = Classify()
    own, context = backbone.attach(adapter, 0), RoundContext(7, 2, "a")
    return AdaptedModel(backbone, own, {"train": examples}, SETTINGS, objective, context, 3, {})


def _moved(learner: AdaptedModel) -> AdaptedModel:
    """The same with tensors far from their start."""
    draw = torch.Generator().manual_seed(4)
    for parameter in learner.parameters().values():
        parameter.data.add_(SIZE * torch.randn(parameter.shape, generator=draw))
    return learner


def _logits(learner: AdaptedModel) -> Tensor:
    with torch.no_grad():
        return learner.forward(learner.batch(learner.examples("train")))


def _by_peft(folder: Path, base: Path, learner: AdaptedModel) -> Tensor:
    """The logits of what a card's Python loads, computed from plain inputs."""
    code = usage(folder, repr(str(folder)), {word: word for word in "abc"})
    found: dict[str, Any] = {"BASE": str(base)}
    exec(code, found)
    model, outputs = found["model"].eval(), []
    for example in learner.examples("train"):
        with torch.no_grad():
            said = model(input_ids=torch.tensor([example.ids])).logits[0]
        outputs.append(said[:-1] if learner.backbone.head.generates_text else said[None])
    return torch.cat(outputs)


@pytest.mark.parametrize("kinds", MIXTURES, ids="+".join)
@pytest.mark.parametrize("name", SHARED)
def test_what_is_saved_has_the_function_that_was_trained(
    name: str, kinds: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone = _backbone(request, name)
    mixture = Mixed.of([_kind(called, name) for called in kinds])
    learner = _moved(_learner(backbone, mixture))
    _learner(backbone, mixture)  # of another client, around it
    wanted = _logits(learner)
    learner.save(tmp_path)
    assert len(folders(tmp_path)) == len(kinds)
    base = request.getfixturevalue(name)
    torch.testing.assert_close(_by_peft(tmp_path, base, learner), wanted, atol=1e-3, rtol=1e-3)

    settings, tensors = read(tmp_path)
    again = _learner(_backbone(request, name), settings)
    again.load(tensors)
    torch.testing.assert_close(_logits(again), wanted, atol=1e-4, rtol=1e-4)
    learner.reopen(tmp_path)


def test_each_folder_has_the_names_that_peft_gives_a_kind_alone(
    tiny_llama: Path, tmp_path: Path
) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    _learner(backbone, Mixed.of([Lora(r=2), IA3()])).save(tmp_path)
    for folder, config in [
        (tmp_path, IA3Config(task_type="CAUSAL_LM")),
        (tmp_path / "lora", LoraConfig(r=2, task_type="CAUSAL_LM")),
    ]:
        base = AutoModelForCausalLM.from_pretrained(tiny_llama)
        alone = get_peft_model_state_dict(get_peft_model(base, config))
        saved = load_file(folder / WEIGHTS)
        assert {n: t.shape for n, t in saved.items()} == {n: t.shape for n, t in alone.items()}
        written = json.loads((folder / CONFIG).read_text())
        assert written["peft_type"] == config.peft_type.value
        assert written["base_model_name_or_path"] is None  # a folder of this machine


@pytest.mark.parametrize("small", [reopened.SMALL, 0], ids=["outputs", "shapes"])
def test_a_kind_that_cannot_be_read_is_refused(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(reopened, "SMALL", small)
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    learner = _moved(_learner(backbone, Mixed.of([Lora(r=2), IA3()])))
    learner.save(tmp_path)
    weights = tmp_path / "lora" / WEIGHTS
    whole = load_file(weights)
    save_file({n: t for n, t in whole.items() if "layers.1" not in n}, weights)
    with pytest.raises(UserError, match=r"cannot be opened again.*do not agree.*lora_"):
        learner.reopen(tmp_path)
    save_file({n: t * 2 for n, t in whole.items()}, weights)
    if small:
        with pytest.raises(UserError, match="has other outputs"):
            learner.reopen(tmp_path)
    shutil.rmtree(tmp_path / "lora")
    with pytest.raises(UserError, match=r"lora holds no adapter that can be read"):
        read(tmp_path)


def test_what_else_lies_in_a_folder_is_no_part_of_its_adapter(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """PEFT writes a model's further adapters, and trainers their checkpoints, into folders."""
    for settings, folder in [(IA3(), tmp_path), (Lora(r=2), tmp_path / "lora")]:
        backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
        _learner(backbone, settings).save(folder)
    assert [kind.kind for kind in read(tmp_path)[0].kinds] == ["IA3"]


def test_a_kind_that_is_left_out_leaves_the_others_and_the_head(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone = _backbone(request, "tiny_bert")
    mixture = Mixed.of([_kind(called, "tiny_bert") for called in ("houlsby", "ia3", "lora")])
    learner = _moved(_learner(backbone, mixture))
    idle = learner.initial()
    for kind in ("BOTTLENECK", "LORA"):
        assert learner.unshared([n for n in idle if kind_mark(kind) not in n]) == [kind]
        learner.load(
            {n: idle[n] if kind_mark(kind) in n else t for n, t in learner.tensors().items()}
        )
        folder = tmp_path / kind
        learner.save(folder, [kind])
        found = _by_peft(folder, request.getfixturevalue("tiny_bert"), learner)
        torch.testing.assert_close(found, _logits(learner), atol=1e-3, rtol=1e-3)
        learner.reopen(folder)
    assert len(folders(tmp_path / "LORA")) == len(folders(tmp_path / "BOTTLENECK")) == 2
    assert learner.unshared(["base_model.model.classifier.weight"]) == []


def kind_mark(kind: str) -> str:
    return {"BOTTLENECK": ".bottleneck_", "LORA": ".lora_"}[kind]


def test_no_kind_reaches_into_a_head_that_is_trained_whole(tiny_bert: Path, tmp_path: Path) -> None:
    """RoBERTa's head has layers that are called as those of its body are."""
    base = tmp_path / "roberta"
    shutil.copytree(tiny_bert, base)  # for its tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"vocab_size": BertConfig.from_pretrained(tiny_bert).vocab_size}
    config = RobertaConfig(num_attention_heads=4, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    RobertaModel(config).save_pretrained(base)
    backbone = load(BaseModelSettings(str(base), bf16=False, device="cpu"), classes=3)
    mixture = Mixed.of([Houlsby(4.0), Lora(r=2, target_modules=("dense", "out_proj"))])
    learner = _moved(_learner(backbone, mixture))
    assert not any("classifier" in name for name in low_rank.layers(learner.tensors()))
    learner.save(tmp_path / "adapter")
    learner.reopen(tmp_path / "adapter")
    found = _by_peft(tmp_path / "adapter", base, learner)
    torch.testing.assert_close(found, _logits(learner), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:8] + b"[]" + data[10:],
        lambda data: data.replace(b'"lora"', b'"../a"'),
        lambda data: data.replace(b'"lora"', b"123456"),
    ],
)
def test_damaged_weights_are_refused_in_a_sentence(
    tiny_llama: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    _learner(backbone, Mixed.of([Lora(r=2), IA3()])).save(tmp_path)
    file = tmp_path / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="holds no adapter that can be read"):
        read(tmp_path)
    assert usage(tmp_path, "X", {}).endswith("PeftModel.from_pretrained(base, X)")


def test_a_residual_goes_into_lora_alone(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    backbone = _backbone(request, "tiny_llama")
    mixture = Mixed.of([_kind(called, "tiny_llama") for called in ("houlsby", "lora")])
    learner = _moved(_learner(backbone, mixture))
    draw = torch.Generator().manual_seed(9)
    own = low_rank.layers(learner.tensors())
    change = {
        name: low_rank.Factors(
            0.1 * torch.randn(len(one.up), 4, generator=draw),
            0.1 * torch.randn(4, one.down.shape[1], generator=draw),
        )
        for name, one in own.items()
    }
    before = _logits(learner)
    learner.set_residual(low_rank.tensors(change))
    wanted = _logits(learner)
    assert (wanted - before).abs().max() > 0.1
    learner.save(tmp_path)
    base = request.getfixturevalue("tiny_llama")
    torch.testing.assert_close(_by_peft(tmp_path, base, learner), wanted, atol=1e-3, rtol=1e-3)
    learner.reopen(tmp_path)
    written = json.loads((tmp_path / "lora" / CONFIG).read_text())
    assert written["r"] == written["lora_alpha"] == 7
    assert "r" not in json.loads((tmp_path / CONFIG).read_text())
