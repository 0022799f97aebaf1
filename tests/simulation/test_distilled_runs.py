"""Runs with the objective `distill`, by their YAML alone, and models that do not fit it."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import tiny_models
from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.interfaces.learner import Learner
from hanse.simulation import run as simulation
from samples import write_experiment

EVERY = "weight: 0.5, temperature: 2, top_k: 2, hidden: 0.5, attention: 0.5"


def distilling(file: Path, teacher: Path, settings: str = EVERY, more: str = "") -> Path:
    """The experiment with a teacher, and with the label words as its answers."""
    text = file.read_text().replace("objective: classify\n", "")
    file.write_text(
        f"{text}objective: {{distill: {{of: classify, {settings}}}}}\n"
        f"models: {{teacher: {{model_name_or_path: {teacher}, bf16: false{more}}}}}\n"
    )
    return file


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "adapter" / "adapter_model.safetensors")


def other_model(folder: Path, to: Path, **changes: Any) -> Path:
    """A random model of the same tokenizer and other sizes."""
    config = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [("fedavg", ""), ("fedprox", ", adapter: {lora: {r: 2}}"), ("scaffold", "")],
)
def test_any_algorithm_distils(
    experiment_file: Path, tiny_gpt2: Path, algorithm: str, more: str
) -> None:
    words = [f"algorithm={algorithm}", "rounds=2"]
    if algorithm == "scaffold":
        words += ["train.optim=sgd", "train.momentum=0"]
    folder = simulation.run(load(distilling(experiment_file, tiny_gpt2, more=more), words))
    assert all(bool(tensor.isfinite().all()) for tensor in trained(folder).values())


def test_without_weight_a_run_is_the_plain_one(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    words = ["clients_per_pass=off", f"output_dir={tmp_path / 'plain'}"]
    plain = trained(simulation.run(load(experiment_file, words)))
    words[1] = f"output_dir={tmp_path / 'taught'}"
    file = distilling(experiment_file, tiny_gpt2, "weight: 0")
    taught = trained(simulation.run(load(file, words)))
    assert plain.keys() == taught.keys()
    assert all(torch.equal(tensor, taught[name]) for name, tensor in plain.items())
    words = [*words[:1], f"output_dir={tmp_path / 'more'}", "objective.distill.weight=0.5"]
    more = trained(simulation.run(load(file, words)))
    assert not all(torch.equal(tensor, more[name]) for name, tensor in plain.items())


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(resources, "load", refused)


@pytest.mark.usefixtures("nothing_loads")
def test_unlike_tokenizers_are_refused_before_a_model_is_loaded(
    experiment_file: Path, tmp_path: Path, tiny_llama: Path
) -> None:
    other = tmp_path / "other"
    tiny_models.save_llama(other, ["quite other words in this vocabulary"] * 5)
    message = rf"models\.teacher \({other}\) .* \({tiny_llama}\), .* unlike vocabularies; choose"
    with pytest.raises(UserError, match=message):
        simulate(load(distilling(experiment_file, other)))


@pytest.mark.usefixtures("nothing_loads")
def test_an_encoder_does_not_teach_a_language_model(experiment_file: Path, tiny_bert: Path) -> None:
    with pytest.raises(
        UserError, match="it is no causal language model and the trained model is a causal"
    ):
        simulate(load(distilling(experiment_file, tiny_bert)))


@pytest.mark.usefixtures("nothing_loads")
def test_a_teacher_that_reads_fewer_tokens_is_refused(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    short = other_model(tiny_llama, tmp_path / "short", max_position_embeddings=64)
    with pytest.raises(UserError, match=r"up to 256, .* at most 64; set model\.max_length to 64"):
        simulate(load(distilling(experiment_file, short)))


def test_what_cannot_be_compared_is_refused_before_training(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    wide = other_model(tiny_llama, tmp_path / "wide", hidden_size=64)
    file = distilling(experiment_file, wide)
    simulate(load(file, ["objective.distill.hidden=0", "objective.distill.attention=0"]))
    with pytest.raises(UserError, match=r"hidden states of 64 and of 32 .*hidden to 0"):
        simulate(load(file))
    with pytest.raises(UserError, match="top_k is 3, and there are 2 classes"):
        simulate(load(file, ["objective.distill.top_k=3"]))


def test_equal_models_are_tried_once(
    experiment_file: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Learner] = []
    file = distilling(experiment_file, tiny_gpt2)
    monkeypatch.setattr(
        "hanse.learners.objectives.distill.Distill.require", lambda _, own: tried.append(own)
    )
    made = simulate(load(file))
    assert len(made.clients) == 3 and len(tried) == 1


def test_without_a_teacher_the_message_shows_how_to_name_one(
    tmp_path: Path, tiny_llama: Path, review_file: Path
) -> None:
    file = write_experiment(tmp_path, tiny_llama, review_file)
    with pytest.raises(UserError, match=r"uses a model called teacher, .* write models: \{teacher"):
        load(file, ["objective={distill: {of: classify}}"])
    with pytest.raises(UserError, match=r"distill\.weight is 2"):
        load(file, ["objective={distill: {weight: 2}}"])
