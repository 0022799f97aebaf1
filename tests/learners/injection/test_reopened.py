"""What is saved is opened again: adapters of every kind are; what nobody can read is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.peft import UNFIT, Peft, methods
from hanse.learners.injection import reopened
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from learners.adapters.test_adapter_kinds import ENCODERS, KINDS

ROWS = [Example(tuple(range(k, k + 6)), tuple(range(k, k + 6))) for k in range(2, 10)]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
LINES = ("q_proj", "v_proj")
NEEDED = {  # what PEFT's methods cannot do without, in a model this small
    **{name: {"r": 2, "target_modules": LINES} for name in ("miss", "psoft", "shira")},
    "c3a": {"block_size": 8, "target_modules": LINES},
    "fourierft": {"n_frequency": 8, "target_modules": LINES},
    "road": {"group_size": 4, "target_modules": LINES},
    "vblora": {"vector_length": 8, "num_vectors": 16, "topk": 2, "target_modules": LINES},
    "waveft": {"n_frequency": 8, "target_modules": LINES},
}
OURS = {"lora", "ia3", "prompt_tuning", "prefix_tuning", "p_tuning", "ln_tuning", "vera"}
OTHERS = {"adaption_prompt", "cartridge", "trainable_tokens"}  # need more than a tiny model has
pytestmark = pytest.mark.filterwarnings("ignore")  # whatever PEFT says of its own methods


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    training = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=2)
    name, context = backbone.attach(settings, 0), RoundContext(0, 1, "a")
    return AdaptedModel(backbone, name, {"train": ROWS}, training, Sft(), context, 1, {})


def _saved(learner: AdaptedModel, folder: Path) -> Path:
    """Tensors that say something, saved."""
    draw = torch.Generator().manual_seed(5)
    for parameter in learner.parameters().values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    learner.save(folder)
    return folder


@pytest.mark.parametrize("small", [reopened.SMALL, 0], ids=["outputs", "shapes"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_opened_again(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, small: int
) -> None:
    monkeypatch.setattr(reopened, "SMALL", small)
    learner = _learner(tiny_gpt2, KINDS[kind])
    before = learner.forward(learner.batch(ROWS[:2]))
    learner.reopen(_saved(learner, tmp_path))
    after = learner.forward(learner.batch(ROWS[:2]))
    assert not torch.equal(before, after)
    learner.load(learner.initial())
    assert torch.equal(learner.forward(learner.batch(ROWS[:2])), before)  # the base is as it was


@pytest.mark.parametrize("kind", sorted({*methods()} - {*UNFIT} - OURS - OTHERS))
def test_every_method_of_peft_is_saved_and_opened_again(
    tiny_llama: Path, tmp_path: Path, kind: str
) -> None:
    learner = _learner(tiny_llama, Peft(kind, NEEDED.get(kind, {})))
    learner.put_constants(learner.constants())
    learner.fit()
    learner.save(tmp_path)
    learner.reopen(tmp_path)


@pytest.mark.parametrize("kind", ENCODERS)
def test_with_an_encoders_head(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    backbone = load(BaseModelSettings(str(tiny_bert), bf16=False), classes=3)
    rows = [Example(row.ids, row.labels, ((0,), (1,), (2,)), 1) for row in ROWS]
    name, context = backbone.attach(ENCODERS[kind], 0), RoundContext(0, 1, "a")
    learner = AdaptedModel(
        backbone, name, {"test": rows}, TrainingSettings(), Sft(), context, 1, {}
    )
    learner.reopen(_saved(learner, tmp_path))


@pytest.mark.parametrize(
    "kinds",
    [
        [Lora(r=2), Houlsby(reduction_factor=4)],
        [Lora(r=2, target_modules=("q_proj",)), IA3(target_modules=("k_proj",))],
    ],
)
def test_of_two_kinds_peft_finds_the_one_that_is_not_lora(
    tiny_llama: Path, tmp_path: Path, kinds: list[Adapter]
) -> None:
    learner = _learner(tiny_llama, Mixed.of(kinds))
    _saved(learner, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["peft_type"] == kinds[1].kind
    learner.reopen(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    alone = _learner(tiny_llama, kinds[1])  # the same tensors, without LoRA
    alone.load({name: learner.tensors()[name] for name in alone.parameters()})
    wanted = alone.backbone.activate(alone.adapter)(input_ids=IDS).logits
    torch.testing.assert_close(plain(input_ids=IDS).logits, wanted)


@pytest.mark.parametrize("names", [("k_proj",), ("v_proj", "mlp.down_proj"), ("down_proj",)])
def test_ia3_in_modules_of_ones_own(
    tiny_llama: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """PEFT refuses an adapter whose feed-forward modules are not among its targets."""
    learner = _learner(tiny_llama, IA3(target_modules=names))
    _saved(learner, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    wanted = learner.backbone.activate(learner.adapter)(input_ids=IDS).logits
    torch.testing.assert_close(plain(input_ids=IDS).logits, wanted)
    sizes = {len(t.flatten()) for n, t in learner.tensors().items() if "down_proj" in n}
    assert sizes <= {64}, "what enters the second layer is scaled, not what leaves it"


def _reconfigured(folder: Path, **changes: object) -> None:
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _without(folder: Path, part: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if part not in n}, folder / WEIGHTS)


def test_what_nobody_can_read_is_refused(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = _learner(tiny_llama, Lora(r=4))
    for small in (reopened.SMALL, 0):
        monkeypatch.setattr(reopened, "SMALL", small)
        _reconfigured(_saved(learner, tmp_path), r=5)
        with pytest.raises(UserError, match=r"cannot be opened again.*size mismatch"):
            learner.reopen(tmp_path)
        _without(_saved(learner, tmp_path), "layers.1.self_attn.v_proj.lora_A")
        with pytest.raises(UserError, match=r"cannot be opened again.*do not agree.*lora_A"):
            learner.reopen(tmp_path)
        _reconfigured(_saved(learner, tmp_path), target_modules=["q_proj"])
        with pytest.raises(UserError, match=r"cannot be opened again.*do not agree.*v_proj"):
            learner.reopen(tmp_path)
        _reconfigured(_saved(learner, tmp_path), bias="all")  # which only `adapter.from` refuses
        with pytest.raises(UserError, match=r"cannot be opened again.*has bias"):
            learner.reopen(tmp_path)


def test_what_says_other_things_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    learner = _learner(tiny_llama, Lora(r=4, lora_alpha=8))
    _reconfigured(_saved(learner, tmp_path), lora_alpha=4)
    with pytest.raises(UserError, match="has other outputs"):
        learner.reopen(tmp_path)
    learner = replace(learner, splits={})  # a server without rows compares shapes alone
    learner.reopen(tmp_path)


def test_a_new_head_must_be_there(tiny_bert: Path, tmp_path: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_bert), bf16=False), classes=3)
    name = backbone.attach(Head(), 0)
    learner = AdaptedModel(backbone, name, {}, TrainingSettings(), Sft(), RoundContext(0), 1, {})
    _without(_saved(learner, tmp_path), "classifier")
    with pytest.raises(UserError, match="cannot be opened again"):
        learner.reopen(tmp_path)
