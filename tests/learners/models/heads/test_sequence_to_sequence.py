"""Encoder-decoders: what they read, write and learn, and that transformers agrees."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hanse.data.example import IGNORED, Example
from hanse.data.formats.row import Row
from hanse.data.tokenization.prompt_answer import paired
from hanse.errors import UserError
from hanse.experiment.loading import load as load_experiment
from hanse.journal import run_folder
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.generation import Decoding
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.serving import evaluate
from hanse.serving.chat import open_talk
from hanse.simulation import run as simulation
from learner_checks import loss, resumed_ends_in_the_same_adapter, trains_together_as_alone
from samples import GOOD, PLAIN

KINDS: dict[str, Adapter] = {
    "lora": Lora(r=2),
    "lora_xs": LoraXS(r=4, lora_alpha=8),
    "ia3": IA3(),
    "houlsby": Houlsby(reduction_factor=4),
    "pfeiffer": Pfeiffer(reduction_factor=4),
    "full": Full(),
    "prompt_tuning": PromptTuning(3),
    "prefix_tuning": PrefixTuning(3),
}


def questions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Pairs whose answer is the word of the question that praises."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = [*draw.choices(PLAIN, k=draw.randint(1, 6)), draw.choice(GOOD)]
        answer = words[-1]
        draw.shuffle(words)
        rows.append({"prompt": f"{' '.join(words)} {number}", "completion": answer})
    return rows


@pytest.fixture(params=["tiny_t5", "tiny_bart"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def file(tmp_path: Path, folder: Path) -> Path:
    """A small experiment with an encoder-decoder."""
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions(120)), encoding="utf-8")
    found = tmp_path / "pairs.yaml"
    found.write_text(
        f"""rounds: 3
clients_per_pass: 2
num_clients: 3
model: {{model_name_or_path: {folder}, bf16: false}}
adapter: {{lora: {{r: 4}}}}
data: {{path: {data}, test: 20, validation: 10}}
train: {{learning_rate: 0.02, max_steps: 3}}
evaluation:
  tasks: [perplexity, generation: {{metrics: [exact_match], max_new_tokens: 8, limit: 20}}]
output_dir: {tmp_path / "run"}
""",
        encoding="utf-8",
    )
    return found


def _run(file: Path, name: str, *words: str) -> Path:
    return simulation.run(load_experiment(file, [f"output_dir={file.parent / name}", *words]))


def _rows(count: int = 24) -> list[Row]:
    return [
        Row(prompt=row["prompt"], completion=row["completion"], place=f"f:{number}")
        for number, row in enumerate(questions(count), 1)
    ]


def _learner(folder: Path, settings: Adapter, **own: Any) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False, **own))
    adapter = backbone.attach(settings, 0)
    training = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=8)
    splits = {"train": paired(_rows(), backbone.tokenizer, {}, "{text}", 64)}
    context = RoundContext(0, 1, "a")
    return AdaptedModel(backbone, adapter, splits, training, Sft(), context, 1, {})


def _plain_loss(model: Any, examples: Any) -> Tensor:
    """The mean loss of the answers' tokens by transformers' own reading of labels."""
    total, count = torch.zeros(()), 0
    for example in examples:
        ids = torch.tensor([example.ids[: example.prompt]])
        labels = torch.tensor([example.ids[example.prompt :]])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits
        total += cross_entropy(logits[0], labels[0], reduction="sum")
        count += labels.shape[1]
    return total / count


def test_a_row_is_a_prompt_and_an_answer_each_with_its_end(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (example,) = paired([Row(prompt="great film", completion=" dull")], tokenizer, {}, "{text}", 64)
    source, target = example.ids[: example.prompt], example.ids[example.prompt :]
    assert list(source) == tokenizer("great film")["input_ids"]
    assert list(target) == tokenizer("dull")["input_ids"]
    assert source[-1] == target[-1] == tokenizer.eos_token_id
    assert example.labels == (*(IGNORED for _ in source), *target)
    assert example.answer == "dull"


def test_prompt_and_answer_have_room_of_their_own(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    talk = (
        {"role": "user", "content": "film " * 20},
        {"role": "assistant", "content": "plot " * 20},
    )
    long, said = "film plot " * 20, "actor scene " * 20
    rows = [Row(prompt=long, completion=said), Row(messages=talk), Row(text=long, label="dull")]
    ends = paired(rows, tokenizer, {"dull": "dull"}, "Review: {text} Label:", 20)
    for example in ends:
        assert 18 <= example.prompt <= 20 and len(example) - example.prompt <= 20
        assert example.ids[example.prompt - 1] == tokenizer.eos_token_id
    assert ends[0].ids[:19] == tuple(tokenizer(long)["input_ids"][:19])
    asked = tokenizer.decode(ends[1].ids[: ends[1].prompt - 1])
    assert asked.startswith("<|start|>user\n") and asked.endswith("assistant\n")
    label = tokenizer.decode(ends[2].ids[:19])
    assert label.startswith("Review:") and label.endswith("Label:")
    assert ends[2].ids[20:] == tuple(tokenizer("dull")["input_ids"])


def test_a_text_without_a_question_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(UserError, match=r"f:1 has no prompt, .* causal language model"):
        paired([Row(text="great film", place="f:1")], tokenizer, {}, "{text}", 64)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_learns_and_plain_peft_says_the_same(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    learner = _learner(folder, KINDS[kind])
    before = loss(learner)
    learner.fit()
    assert loss(learner) < before
    learner.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    base = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    examples = learner.examples("train")
    bare = _plain_loss(base, examples)
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    found = _plain_loss(model, examples)
    torch.testing.assert_close(found, torch.tensor(loss(learner)))
    assert not torch.allclose(found, bare)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", ["lora", "ia3", "prompt_tuning", "prefix_tuning"])
def test_answers_are_those_of_plain_peft(folder: Path, kind: str, tmp_path: Path) -> None:
    learner = _learner(folder, KINDS[kind])
    learner.fit()
    learner.save(tmp_path)
    base = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    examples = learner.examples("train")[:6]

    def answer(model: Any, example: Example) -> str:
        ids = torch.tensor([example.ids[: example.prompt]])
        mask = torch.ones_like(ids)
        said = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        return learner.text(said[0].tolist())

    alone = [answer(base, example) for example in examples]
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    adapted = [answer(model, example) for example in examples]
    assert learner.generate(examples, 6) == adapted
    learner.base_only = True
    assert learner.generate(examples, 6) == alone
    assert adapted != alone


@pytest.mark.parametrize("kind", ["lora", "lora_xs", "ia3", "houlsby", "pfeiffer"])
def test_clients_train_together_as_alone(folder: Path, kind: str) -> None:
    learner = _learner(folder, KINDS[kind])
    smaller = {"per_device_train_batch_size": 2, "max_steps": 4}
    changes = ({"max_steps": 4}, {"max_steps": 2}, smaller)
    trains_together_as_alone(learner, changes, left_out=6, atol=1e-5)


def test_layers_computed_again_give_the_same_gradients(folder: Path) -> None:
    losses, gradients = [], []
    for again in (False, True):
        learner = _learner(folder, Lora(r=2), gradient_checkpointing=again)
        loss = learner.objective.loss(learner, learner.batch(learner.examples("train")))
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in learner.parameters().values()])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert any(bool(own.any()) for own in gradients[0])


def test_dropout_trains_alone(folder: Path) -> None:
    assert not _learner(folder, Lora(r=2, lora_dropout=0.1)).member().joins


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
@pytest.mark.parametrize("clients_per_pass", ["off", "3"])
def test_a_federation_learns_to_answer(file: Path, clients_per_pass: str) -> None:
    words = [
        "rounds=4",
        "train.max_steps=10",
        "train.learning_rate=0.01",
        f"clients_per_pass={clients_per_pass}",
    ]
    run = _run(file, "run", "adapter.lora.target_modules=all-linear", *words)
    before, after = (run_folder.read_evaluation(run, "test-perplexity", at) for at in (0, 4))
    assert after.metrics["loss"] < before.metrics["loss"] - 1
    said = run_folder.read_evaluation(run, "test-generation", 4)
    assert evaluate.compare(run)["generation"].adapted.items == [*said.items]
    asked, answer = said.samples[0].prompt, said.samples[0].said
    heard: list[str] = []
    assert open_talk(run).answer(asked, Decoding(8), heard.append).strip() == answer
    assert "".join(heard).strip() == answer


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT's own calls
def test_labels_are_written_and_not_chosen(file: Path, review_file: Path) -> None:
    words = [f"data.path={review_file}", "rounds=1", "train.max_steps=1"]
    with pytest.raises(UserError, match=r"does not choose between labels; .* objective: sft"):
        _run(file, "chosen", *words, "objective=classify", "evaluation.tasks=null")
    talk = open_talk(_run(file, "run", *words))
    asked = talk.learner.backbone.tokenizer("great\nLabel:")["input_ids"]
    (said,) = talk.learner.generate([Example(tuple(asked), (), prompt=len(asked))], 8)
    assert talk.answer("great", Decoding(8)) == said


def test_stopped_and_resumed_it_ends_in_the_same_adapter(file: Path) -> None:
    resumed_ends_in_the_same_adapter(file)


def test_hidden_states_are_those_of_the_decoder_at_the_answers_tokens(folder: Path) -> None:
    learner = _learner(folder, Lora(r=2))
    batch = learner.batch(learner.examples("train"))
    found = learner.hidden_states(batch)
    assert found.shape == (3, len(batch.targets), 32)
    found.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.parameters().values())
    with learner.backbone.without_adapter(), torch.no_grad():
        model = learner.backbone.model.get_base_model()
        expected = []
        for example in learner.examples("train"):
            text, answer = example.ids[: example.prompt], example.ids[example.prompt :]
            inputs = (learner.backbone.head.start, *answer[:-1])
            output = model(
                torch.tensor([text]),
                decoder_input_ids=torch.tensor([inputs]),
                output_hidden_states=True,
            )
            expected.append(torch.stack(output.decoder_hidden_states)[:, 0])
    base = learner.hidden_states(batch, base=True)
    torch.testing.assert_close(base, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)


def test_continuations_are_answers_of_the_decoder(folder: Path) -> None:
    learner = _learner(folder, Lora(r=2))
    examples = learner.examples("train")[:5]
    answers = learner.continuations(examples, 6, 0.0, seed=0)
    texts = learner.generate(examples, 6)
    assert [learner.text(e.ids[e.prompt :]) for e in answers] == texts
    assert [e.ids[: e.prompt] for e in answers] == [e.ids[: e.prompt] for e in examples]
    assert learner.forward(learner.batch(answers)).shape[0] == sum(
        len(e) - e.prompt for e in answers
    )
