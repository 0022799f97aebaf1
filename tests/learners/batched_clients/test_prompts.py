"""Vectors before every text: what is sent and saved of them, where a model looks, going on."""

from pathlib import Path

import pytest
import torch

from clients import client, rows
from hanse.data.example import Example
from hanse.experiment.loading import load as load_experiment
from hanse.journal import run_folder
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.serving.evaluate import compare
from hanse.simulation import run as simulation


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    return client(load(BaseModelSettings(str(folder), bf16=False)), "a", rows(0, 8), settings)


@pytest.mark.parametrize("settings", [PTuning(3), PTuning(3, "LSTM", encoder_hidden_size=16)])
def test_p_tuning_sends_its_encoder_and_saves_its_prompt(
    folder: Path, settings: PTuning, tmp_path: Path
) -> None:
    learner = _learner(folder, settings)
    encoder = learner.backbone.model.prompt_encoder[learner.adapter]
    shapes = {f"prompt_encoder.{name}": p.shape for name, p in encoder.named_parameters()}
    assert {name: p.shape for name, p in learner.parameters().items()} == shapes
    learner.fit()
    learner.save(tmp_path)
    found, tensors = read(tmp_path)
    with torch.no_grad():
        assert torch.equal(tensors.pop("prompt_embeddings"), encoder(torch.arange(3)[None])[0])
    assert not tensors
    assert found == PromptTuning(3)  # what goes on is the prompt itself
    assert learner.member().joins == (settings == PTuning(3))  # LSTMs train by themselves


def test_an_lstm_drops_in_training_alone(tiny_llama: Path) -> None:
    learner = _learner(tiny_llama, PTuning(3, "LSTM", 8, encoder_dropout=0.5))
    batch = learner.batch(learner.examples("train"))
    with torch.no_grad():
        assert torch.equal(learner.forward(batch), learner.forward(batch))
        with learner.backbone.with_dropout(learner.adapter):
            assert not torch.equal(learner.forward(batch), learner.forward(batch))


@pytest.mark.parametrize("settings", [PromptTuning(3), PrefixTuning(3), PTuning(3)])
def test_only_labelled_places_are_looked_at_behind_trained_vectors(
    folder: Path, settings: Adapter
) -> None:
    learner = _learner(folder, settings)
    batch = learner.batch([Example((3, 4, 5, 6), (3, 4, 5, 6)), Example((7, 8), (7, 8))])
    with torch.no_grad():
        found = learner.forward(batch)
        whole = learner.backbone.activate(learner.adapter)(input_ids=batch.ids).logits
    whole = whole[:, -batch.ids.shape[1] :]
    torch.testing.assert_close(found, torch.cat([whole[0, :3], whole[1, :1]]))


def test_a_run_goes_on_from_what_p_tuning_has_made(experiment_file: Path, tmp_path: Path) -> None:
    def run(name: str, *words: str) -> Path:
        always = (
            "rounds=1",
            "clients_per_pass=3",
            "model.max_length=64",
            f"output_dir={tmp_path / name}",
        )
        return simulation.run(load_experiment(experiment_file, [*words, *always]))

    made = run("made", "adapter.p_tuning.num_virtual_tokens=3", "train.learning_rate=0.1")
    on = run("on", f"adapter.from={made}")
    after, before = (
        run_folder.read_evaluation(folder, "test-classification", at)
        for folder, at in ((made, 1), (on, 0))
    )
    assert after.items == before.items
    assert after.metrics["loss"] == pytest.approx(before.metrics["loss"], abs=1e-6)
    tensors = read(on / "adapter")[1]
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "prompt_embeddings": (3, 32)
    }
    assert not torch.equal(tensors["prompt_embeddings"], read(made / "adapter")[1].popitem()[1])
    assert compare(made)["classification"].adapted.items == [*after.items]
