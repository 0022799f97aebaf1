"""Encoders that tag words: what they read and learn, and that transformers agrees."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hanse.data.example import IGNORED
from hanse.data.formats.row import Row
from hanse.data.tokenization.tags import tag_names, tagged
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load as load_experiment
from hanse.journal import run_folder
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.tag import Tag
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.serving import evaluate
from hanse.serving.chat import open_talk
from hanse.simulation import run as simulation
from learner_checks import loss, resumed_ends_in_the_same_adapter, trains_together_as_alone
from samples import sentences

KINDS: dict[str, Adapter] = {
    "lora": Lora(r=2, target_modules=("query", "value")),
    "ia3": IA3(),
    "houlsby": Houlsby(reduction_factor=4),
    "full": Full(),
    "prompt_tuning": PromptTuning(3),
    "prefix_tuning": PrefixTuning(3),
}
LORA = "adapter.lora.target_modules=[query, value]"


@pytest.fixture
def file(tmp_path: Path, tiny_bert: Path) -> Path:
    """A small experiment with an encoder that tags."""
    data = tmp_path / "sentences.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sentences(160)), encoding="utf-8")
    found = tmp_path / "tags.yaml"
    found.write_text(
        f"""rounds: 3
clients_per_pass: 2
num_clients: 3
model: {{model_name_or_path: {tiny_bert}, bf16: false}}
adapter: {{lora: {{r: 4, target_modules: [query, value]}}}}
data: {{path: {data}, test: 30, validation: 20}}
objective: tag
train: {{learning_rate: 0.01, max_steps: 3}}
output_dir: {tmp_path / "run"}
""",
        encoding="utf-8",
    )
    return found


def _run(file: Path, name: str, *words: str) -> Path:
    return simulation.run(load_experiment(file, [f"output_dir={file.parent / name}", *words]))


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    rows = [
        Row(words=tuple(row["tokens"]), tags=tuple(row["ner_tags"]), text=" ".join(row["tokens"]))
        for row in sentences(24)
    ]
    names = tag_names(rows, {})
    backbone = load(
        BaseModelSettings(str(folder), bf16=False), classes=len(names), example_kind="tags"
    )
    adapter = backbone.attach(settings, 0)
    training = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=8)
    splits = {"train": tagged(rows, backbone.tokenizer, names, 64)}
    context = RoundContext(0, 1, "a")
    return AdaptedModel(backbone, adapter, splits, training, Tag(), context, 1, {})


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_learns_and_plain_peft_says_the_same(
    tiny_bert: Path, kind: str, tmp_path: Path
) -> None:
    learner = _learner(tiny_bert, KINDS[kind])
    before = loss(learner)
    learner.fit()
    assert loss(learner) < before
    learner.save(tmp_path)
    examples = learner.examples("train")
    base = AutoModelForTokenClassification.from_pretrained(
        tiny_bert, num_labels=len(examples[0].classes), dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    with torch.no_grad():
        found = learner.forward(learner.batch(examples)).split(
            [sum(tag != IGNORED for tag in example.tags) for example in examples]
        )
        for example, mine in zip(examples, found, strict=True):
            ids = torch.tensor([example.ids])
            own = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            own = own[-len(example) :]  # behind words of the adapter's own
            labelled = torch.tensor([tag != IGNORED for tag in example.tags])
            torch.testing.assert_close(mine, own[labelled])


@pytest.mark.parametrize("kind", ["lora", "ia3", "houlsby"])
def test_clients_train_together_as_alone(tiny_bert: Path, kind: str) -> None:
    learner = _learner(tiny_bert, KINDS[kind])
    changes = ({}, {"max_steps": 2}, {"per_device_train_batch_size": 2})
    trains_together_as_alone(learner, changes, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.parametrize("clients_per_pass", ["off", "3"])
def test_a_federation_learns_and_transformers_says_the_same(
    file: Path, tiny_bert: Path, clients_per_pass: str
) -> None:
    folder = _run(
        file, "run", f"clients_per_pass={clients_per_pass}", "rounds=4", "train.max_steps=12"
    )
    before, after = (run_folder.read_evaluation(folder, "test-tagging", at) for at in (0, 4))
    for name in ("accuracy", "f1"):
        assert after.metrics[name] > before.metrics[name] + 0.2
    assert after.metrics["loss"] < before.metrics["loss"]
    experiment = load_experiment(folder / "experiment.yaml")
    names = list(experiment.data.labels)
    base = AutoModelForTokenClassification.from_pretrained(
        tiny_bert, num_labels=len(names), dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    test = divide(experiment).test
    mean = sum(len(row.words) for row in test) / len(test)
    for row, item in zip(test, after.items, strict=True):
        encoded = tokenizer(row.text, return_tensors="pt")
        with torch.no_grad():
            answers = model(**encoded).logits[0].argmax(dim=1).tolist()
        starts, at = [], 0
        for word in row.words:
            starts.append(encoded.char_to_token(at))
            at += len(word) + 1
        right = sum(names[answers[p]] == tag for p, tag in zip(starts, row.tags, strict=True))
        accuracy = after.metrics["accuracy"]
        assert item == pytest.approx(accuracy + (right - accuracy * len(row.words)) / mean)


def test_stopped_and_resumed_it_ends_in_the_same_adapter(file: Path) -> None:
    resumed_ends_in_the_same_adapter(file)


def test_a_run_is_scored_again_as_it_was(file: Path) -> None:
    folder = _run(file, "run")
    found = evaluate.compare(folder)["tagging"]
    last = run_folder.read_rounds(folder)[-1].round
    assert found.adapted.items == [*run_folder.read_evaluation(folder, "test-tagging", last).items]


def test_a_talk_tags_the_words_of_a_text(file: Path) -> None:
    folder = _run(file, "run", "rounds=4", "train.max_steps=12")
    talk = open_talk(folder)
    words = talk.tags("film great  film dull")
    assert [word for word, _ in words] == ["film", "great", "film", "dull"]
    # What is said is what the run's test found, word by word.
    experiment = load_experiment(folder / "experiment.yaml")
    test, found = divide(experiment).test, run_folder.read_evaluation(folder, "test-tagging", 4)
    accuracy, mean = found.metrics["accuracy"], sum(len(row.words) for row in test) / len(test)
    for row, item in zip(test, found.items, strict=True):
        pairs = zip(talk.tags(row.text), row.tags, strict=True)
        right = sum(said == tag for (_, said), tag in pairs)
        assert item == pytest.approx(accuracy + (right - accuracy * len(row.words)) / mean)


def test_a_decoder_tags_nothing(file: Path, tiny_llama: Path, tiny_t5: Path) -> None:
    for model in (tiny_llama, tiny_t5):
        with pytest.raises(UserError, match=r"no output for each word .* such as minilm-l6"):
            _run(file, "run", f"model.model_name_or_path={model}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("objective=sft", "only objective: tag learns from"),
        ("objective=classify", "only objective: tag learns from"),
        ("data.partition={dirichlet: {alpha: 1}}", "goes by label, but this row has none"),
        ("data.labels={O: O, B-good: B-good}", r"the tag '.-\w+' is none of the 2 of"),
        ("data.labels={O: O}", "objective tag chooses between tags, but there is only 'O'"),
        (
            "data.labels={O: O, B-good: x, I-good: x}",
            "gives the tags 'B-good' and 'I-good' the same name 'x'",
        ),
    ],
)
def test_what_does_not_go_together_is_said_before_a_model_is_loaded(
    file: Path, word: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        _run(file, "run", word, "model.model_name_or_path=/nowhere")


def test_tags_of_other_rows_need_other_columns(file: Path, review_file: Path) -> None:
    with pytest.raises(UserError, match=r"objective tag needs words \+ tags, but .* text \+ label"):
        _run(file, "run", f"data.path={review_file}")


def test_a_tag_that_training_has_not_seen_is_refused_with_a_way_out(file: Path) -> None:
    data = file.parent / "sentences.jsonl"
    strange = {"tokens": ["great", "film"], "ner_tags": ["B-new", "O"]}
    folder = _run(file, "run", "rounds=1", "train.max_steps=1")
    other = file.parent / "other.jsonl"
    other.write_text(json.dumps(strange) + "\n")
    with pytest.raises(
        UserError, match=r"other.jsonl:1: the tag 'B-new' is none of the 5 .*labels"
    ):
        evaluate.compare(folder, data=str(other))
    # The row is held out by some seed; then its tag is in no training row.
    data.write_text(data.read_text() + json.dumps(strange) + "\n")
    seeds = (f"data.split_seed={seed}" for seed in range(40))
    held = next(
        seed
        for seed in seeds
        if any("B-new" in row.tags for row in divide(load_experiment(file, [seed])).test)
    )
    with pytest.raises(UserError, match="the tag 'B-new' is none of the 5 of the training rows"):
        _run(file, "again", held)
    labels = "{O: O, B-good: B-good, I-good: I-good, B-bad: B-bad, I-bad: I-bad, B-new: B-new}"
    _run(file, "named", held, f"data.labels={labels}", "rounds=1", "train.max_steps=1")
