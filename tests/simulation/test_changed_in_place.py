"""Runs of FedKSeed: what they save is enough to have the trained model again, anywhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hanse.api import load_run
from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners.in_place_model import InPlaceModel
from hanse.planning.preview.estimate import preview
from hanse.serving import evaluate, merged_model, trained_adapter
from hanse.simulation import run as simulation
from hanse.tensors import directions
from samples import Outcome
from stopping import ctrl_c

WORDS = (
    *("algorithm.fedkseed.seeds=32", "adapter=none", "train.optim=sgd", "rounds=2"),
    *("train.max_steps=6", "train.learning_rate=0.001", "train.lr_scheduler_type=constant"),
)
IDS = torch.arange(3, 20)[None]


def run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, [*WORDS, *words]))


def change(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_run_saves_seeds_that_give_the_trained_model(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    recommended = {"do_sample": True, "temperature": 0.7}
    (base / "generation_config.json").write_text(json.dumps(recommended))
    folder = run(experiment_file, f"model.model_name_or_path={base}")
    saved = change(folder)
    assert saved.keys() == {"seed", "amounts"}
    assert saved["amounts"].any()
    merged_model.write(folder, tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert written.items() >= recommended.items()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    weights = {name: p.detach() for name, p in plain.named_parameters()}
    directions.add(weights, int(saved["seed"]), directions.nonzero(saved["amounts"]))
    trained = {name: p.detach() for name, p in model.named_parameters()}
    for name, weight in weights.items():
        torch.testing.assert_close(trained[name], weight, atol=1e-6, rtol=0)
        assert not torch.equal(weight, before[name])
    recorded = run_folder.read_rounds(folder)[-1].test
    scores = evaluate.compare(folder)["classification"]
    assert scores.adapted.metrics["loss"] == pytest.approx(recorded["loss"], abs=1e-6)
    first = run_folder.read_rounds(folder)[0].test
    assert scores.base.metrics["loss"] == pytest.approx(first["loss"], abs=1e-6)


def test_a_new_head_is_saved_with_its_start(
    experiment_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    words = [f"model.model_name_or_path={tiny_bert}", "seed=3"]
    folder = run(experiment_file, *words)
    assert {"start/classifier.weight", "start/classifier.bias"} <= change(folder).keys()
    merged_model.write(folder, tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    found = trained_adapter.find(folder / "adapter", [f"model.model_name_or_path={tiny_bert}"])
    learner = found.learner(Resources(), {})
    assert isinstance(learner, InPlaceModel)
    with torch.no_grad():
        wanted = learner.backbone.model(input_ids=IDS).logits
        loaded = load_run(folder).adapter.load()
        for other in (model, loaded):
            torch.testing.assert_close(other(input_ids=IDS).logits, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="only one of them has pooler"):
        learner.load({**found.tensors, "start/pooler.weight": torch.zeros(2)})


def test_a_stopped_run_ends_with_the_same_seeds_and_amounts(
    experiment_file: Path, tmp_path: Path
) -> None:
    words = ["algorithm.fedkseed.pro=true", "rounds=3"]
    whole, stopped = run(experiment_file, *words), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, *words, f"output_dir={stopped}")
    assert trained_adapter.find(stopped, ["model.bf16=auto"]).experiment.model.bf16 is False
    resumed = change(simulation.resume(stopped))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in change(whole).items())


@pytest.mark.parametrize("algorithm", ["fedkseed", "fedkseed_sums"])
def test_check_predicts_the_bytes_of_a_round(experiment_file: Path, algorithm: str) -> None:
    words = [f"algorithm.{algorithm}.seeds=32", *WORDS[1:]]
    words += ["train.max_steps=9", "data.client_test=0"]  # more than a probe makes
    words += ["clients.silo-2.train.per_device_train_batch_size=1"]
    predicted = preview(load(experiment_file, words)).traffic["train"]
    records = run_folder.read_ledger(simulation.run(load(experiment_file, words)))
    trained = [record for record in records if record.kind == "train"]
    assert len(trained) == 6
    for record in trained:
        assert record.down == predicted[record.client].down
        assert record.up == predicted[record.client].up == predicted[record.client].most_up


def test_the_command_line_refuses_an_adapter(
    hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    outcome = hanse("check", experiment_file, "algorithm=fedkseed", "adapter=lora")
    assert outcome.code == 2
    assert "set adapter=none" in " ".join(outcome.err.split())
