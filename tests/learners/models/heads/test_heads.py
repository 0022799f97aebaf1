"""A classifier's head, new or with weights: trained whole, and no adapter is put into it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from clients import SETTINGS
from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.bitfit import BitFit
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.peft import Peft
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.tag import Tag
from hanse.randomness import RoundContext

SIZES = {"vocab_size": 300, "max_position_embeddings": 64, "type_vocab_size": 1}
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
WIDE |= {"num_attention_heads": 4, "initializer_range": 0.2, **SIZES}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**WIDE),
    "roberta": RobertaConfig(**WIDE),
    "xlm-roberta": XLMRobertaConfig(**WIDE),
    "camembert": CamembertConfig(**WIDE),
    "electra": ElectraConfig(**WIDE, embedding_size=16),
    "distilbert": DistilBertConfig(vocab_size=300, dim=32, hidden_dim=64, n_layers=2, n_heads=4),
    "mpnet": MPNetConfig(**WIDE),
    "deberta-v2": DebertaV2Config(**WIDE),
}
ALL = "all-linear"
ADAPTERS: dict[str, Adapter] = {
    "all-linear": Lora(r=2, target_modules=ALL),
    "upper layer": Lora(r=2, target_modules=ALL, layers_to_transform=(1,)),
    "by suffix": Lora(r=2, target_modules=("dense", "out_proj", "lin1", "classifier")),
    "by pattern": Lora(r=2, target_modules=r".*(dense|lin1|classifier|out_proj)"),
    "lora_xs": LoraXS(r=4),
    "vera": Peft("vera", {"r": 2, "target_modules": ALL}),
    "bitfit": BitFit(),
    "full": Full(),
    "prompt_tuning": PromptTuning(3),
    "two": Mixed.of(
        [
            Houlsby(4, target_modules=("lin2", "dense")),
            Lora(r=2, target_modules=("query", "q_lin", "out_proj", "pre_classifier")),
        ]
    ),
}
AUTO = {"text": AutoModelForSequenceClassification, "tokens": AutoModelForTokenClassification}


@pytest.fixture(params=["new", "with weights"])
def new(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "new")


def _folder(kind: str, reads: str, new: bool, tiny_bert: Path, to: Path) -> Path:
    config = CONFIGS[kind]
    torch.manual_seed(0)
    model = AutoModel.from_config(config) if new else AUTO[reads].from_config(config)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(to)
    return to


def _examples(reads: str) -> list[Example]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(8):
        ids = tuple(torch.randint(3, 290, (4 + number,), generator=draw).tolist())
        if reads == "text":
            choices = ((0,), (1,))
            found.append(Example(ids, (IGNORED,) * len(ids), choices, number % 2, answer="x"))
        else:
            tags = tuple(place % 2 for place in range(len(ids)))
            found.append(Example(ids, (IGNORED,) * len(ids), tags=tags, classes=("a", "b")))
    return found


def _learner(folder: Path, reads: str, settings: Adapter) -> AdaptedModel:
    example_kind = {"text": "label_words", "tokens": "tags"}[reads]
    backbone = load(
        BaseModelSettings(str(folder), bf16=False), classes=2, example_kind=example_kind
    )
    adapter = backbone.attach(settings, 0)
    objective: Any = Classify() if reads == "text" else Tag()
    splits: dict[str, Sequence[Example]] = {"train": _examples(reads)}
    training = replace(SETTINGS, learning_rate=0.02)
    context = RoundContext(0, 1, "a")
    return AdaptedModel(backbone, adapter, splits, training, objective, context, 1, {})


def test_an_encoder_draws_no_answers(tiny_bert: Path) -> None:
    learner = _learner(tiny_bert, "text", ADAPTERS["all-linear"])
    with pytest.raises(UserError, match="writes no answers"):
        learner.continuations(learner.examples("train"), 4, 0.0, seed=0)


def test_the_base_of_an_encoder_is_the_model_before_training(tiny_bert: Path) -> None:
    learner = _learner(tiny_bert, "text", Lora(r=2, target_modules=("query", "value")))
    batch = learner.batch(learner.examples("train"))
    before = learner.base_logits(batch)
    learner.fit()
    assert torch.equal(learner.base_logits(batch), before)
    with torch.no_grad():
        assert not torch.allclose(learner.forward(batch), before, atol=1e-3)


@pytest.mark.parametrize("reads", ["text", "tokens"])
def test_hidden_states_are_what_the_outputs_are_made_of(reads: str, tiny_bert: Path) -> None:
    """Those of the first token of a text, or of the first token of each word."""
    learner = _learner(tiny_bert, reads, ADAPTERS["all-linear"])
    batch = learner.batch(learner.examples("train"))
    model = learner.backbone.activate(learner.adapter).get_base_model()
    found = learner.hidden_states(batch)
    assert found.shape == (3, len(batch.at), 32)
    if reads == "text":
        rows = [(example, [0]) for example in learner.examples("train")]
    else:
        rows = [(example, list(range(len(example)))) for example in learner.examples("train")]
    expected = [
        torch.stack(model(torch.tensor([e.ids]), output_hidden_states=True).hidden_states)[:, 0, at]
        for e, at in rows
    ]
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # of several kinds
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_head_is_trained_whole_and_saved(
    kind: str, adapter: str, new: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    _check(kind, "text", ADAPTERS[adapter], new, tiny_bert, tmp_path)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # of several kinds
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_new_head_begins_alike_whatever_the_adapter(
    kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    """`hanse evaluate` puts what was saved, such as LoRA of LoRA-XS, beside the head at first."""
    folder = _folder(kind, "text", True, tiny_bert, tmp_path)
    wanted: dict[str, torch.Tensor] = {}
    for settings in (*ADAPTERS.values(), Lora(r=8, target_modules=ALL)):
        learner = _learner(folder, "text", settings)
        fresh = tuple(f".{name}." for name in learner.backbone.fresh)
        own = {
            name[name.index(mark) :]: tensor
            for name, tensor in learner.initial().items()
            for mark in fresh
            if mark in name and "lora_" not in name
        }
        wanted = wanted or own
        assert own and own.keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in own.items())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("adapter", ["all-linear", "prompt_tuning"])
@pytest.mark.parametrize("reads", AUTO)
@pytest.mark.parametrize("kind", CONFIGS)
def test_so_it_is_of_other_encoders(
    kind: str, reads: str, adapter: str, new: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    _check(kind, reads, ADAPTERS[adapter], new, tiny_bert, tmp_path)


def _check(
    kind: str, reads: str, settings: Adapter, new: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = _folder(kind, reads, new, tiny_bert, tmp_path / "model")
    learner = _learner(folder, reads, settings)
    base = learner.backbone.model.get_base_model()
    plain = AUTO[reads].from_config(CONFIGS[kind])
    head = [name for name, own in plain.named_children() if [*own.parameters()]]
    head.remove(plain.base_model_prefix)
    for name in head:
        wrapper = base.get_submodule(name)
        assert isinstance(wrapper, ModulesToSaveWrapper), name
        own = {part for part, _ in wrapper.modules_to_save[learner.adapter].named_parameters()}
        assert own == {part for part, _ in plain.get_submodule(name).named_parameters()}
        trained = {n.partition(f".{name}.")[2] for n in learner.parameters() if f".{name}." in n}
        assert trained == own
    before = learner.tensors()
    learner.fit()
    moved = [n for n, t in learner.tensors().items() if not torch.equal(t, before[n])]
    assert any(f".{name}." in own for name in head for own in moved)
    _check_batches(learner)
    learner.save(tmp_path / "adapter")
    again = AUTO[reads].from_pretrained(folder, dtype=torch.float32, num_labels=2)
    for place in adapter_files.kind_folders(tmp_path / "adapter"):
        loaded = PeftModel.from_pretrained(again, str(place)).eval()
    ids = torch.tensor([_examples(reads)[0].ids])
    with torch.no_grad():
        told = loaded(input_ids=ids).logits
        batch = learner.batch(_examples(reads)[:1])
        found = learner.forward(batch)
    told = told if reads == "text" else told[0, -ids.shape[1] :]
    torch.testing.assert_close(found, told, atol=1e-5, rtol=1e-5)


def _check_batches(learner: AdaptedModel) -> None:
    """Scores are the same alone and beside longer rows."""
    examples = learner.examples("train")
    with torch.no_grad():
        together = learner.forward(learner.batch(examples))
        alone = torch.cat([learner.forward(learner.batch([own])) for own in examples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("reads", AUTO)
def test_a_row_that_only_fills_up_changes_nothing(tiny_bert: Path, reads: str, bf16: bool) -> None:
    """A cohort has as many rows for each client as for the largest."""
    example_kind = {"text": "label_words", "tokens": "tags"}[reads]
    backbone = load(
        BaseModelSettings(str(tiny_bert), bf16=bf16), classes=2, example_kind=example_kind
    )
    name = backbone.attach(ADAPTERS["all-linear"], 0)
    backbone.activate(name)
    ids, at, gradients = torch.tensor([[5, 6, 7, 8], [0, 0, 0, 0]]), torch.tensor([3]), []
    for rows, lengths in ((ids[:1], (4,)), (ids, (4, 0))):
        backbone.logits(rows, at, lengths).square().sum().backward()
        gradients.append([own.grad.clone() for own in backbone.parameters(name).values()])
        backbone.model.zero_grad()
    for alone, filled in zip(*gradients, strict=True):
        torch.testing.assert_close(filled, alone, atol=0.02 if bf16 else 1e-5, rtol=0.02)
