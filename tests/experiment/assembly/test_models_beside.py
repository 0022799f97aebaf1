"""Models beside the trained one: who has which, with its own rows and its own adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from samples import ROOT, reviews, write_lines

PART = ROOT / "tests" / "parts" / "mentors.py"


def simulated(file: Path, model: Path, *words: str, part: str = "Mentored") -> Simulation:
    mentor = [f"algorithm={PART}:{part}", f"models.mentor.model_name_or_path={model}"]
    return simulate(load(file, [*mentor, "models.mentor.bf16=false", *words]))


def test_clients_have_a_mentor_and_the_server_has_none(
    experiment_file: Path, tiny_gpt2: Path
) -> None:
    made = simulated(experiment_file, tiny_gpt2)
    mentors = [client.learner.models["mentor"] for client in made.clients.values()]
    assert made.learner.models == {}
    assert len({id(mentor.backbone) for mentor in mentors}) == 1
    assert mentors[0].backbone is not made.learner.backbone
    for client, mentor in zip(made.clients.values(), mentors, strict=True):
        for split in ("train", "test"):
            assert len(mentor.examples(split)) == len(client.learner.examples(split)) > 0


def test_the_server_has_a_mentor_and_clients_have_none(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    public = f"data.public={write_lines(tmp_path / 'public.jsonl', reviews(24, seed=5))}"
    made = simulated(experiment_file, tiny_gpt2, public, part="MentoredServer")
    splits = {name: len(s) for name, s in made.learner.models["mentor"].splits.items()}
    assert splits == {"validation": 20, "test": 30, "public": 24}
    assert all(client.learner.models == {} for client in made.clients.values())


def test_a_mentor_reads_with_its_own_length(experiment_file: Path, tiny_gpt2: Path) -> None:
    made = simulated(experiment_file, tiny_gpt2, "models.mentor.max_length=13")
    [client, *_] = made.clients.values()
    assert max(map(len, client.learner.models["mentor"].examples("train"))) <= 13
    assert max(map(len, client.learner.examples("train"))) > 13
    remarks = " ".join(made.dataset.remarks)
    assert "models.mentor.max_length (13) cuts" in remarks
    assert "model.max_length (" not in remarks.replace("models.mentor.max_length (", "")


def test_the_same_base_model_has_an_adapter_for_each_name(
    experiment_file: Path, tiny_llama: Path
) -> None:
    made = simulated(experiment_file, tiny_llama, "models.mentor.adapter={lora: {r: 4}}")
    [client, *_] = made.clients.values()
    mentor = client.learner.models["mentor"]
    assert mentor.backbone is made.learner.backbone
    assert mentor.adapter != client.learner.adapter
    own, theirs = mentor.initial(), client.learner.initial()
    assert own.keys() == theirs.keys()
    assert not all(torch.equal(own[name], theirs[name]) for name in own), "draws of its own"


def test_a_clients_own_settings_load_a_model_of_its_own(
    experiment_file: Path, tiny_gpt2: Path, tiny_llama: Path
) -> None:
    own: dict[str, Any] = {"models": {"mentor": {"model_name_or_path": str(tiny_llama)}}}
    made = simulated(experiment_file, tiny_gpt2, f"clients={{silo-2: {own}}}")
    names = {n: c.learner.models["mentor"].backbone.name for n, c in made.clients.items()}
    assert names == {"silo-1": str(tiny_gpt2), "silo-2": str(tiny_llama), "silo-3": str(tiny_gpt2)}


def test_a_mentor_goes_on_from_a_saved_adapter(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    made = simulated(experiment_file, tiny_gpt2, "models.mentor.adapter={lora: {r: 2}}")
    mentor = made.clients["silo-1"].learner.models["mentor"]
    mentor.fit()
    saved = mentor.tensors()
    mentor.save(tmp_path / "former")
    again = simulated(
        experiment_file, tiny_gpt2, f"models.mentor.adapter={{from: {tmp_path}/former}}"
    )
    initial = again.clients["silo-2"].learner.models["mentor"].initial()
    assert initial.keys() == saved.keys()
    assert all(torch.equal(initial[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("max_length=999", r"models\.mentor: model\.max_length is 999, but .* at most 256 tokens"),
        ("adapter={lora: {target_modules: [nowhere]}}", r"models\.mentor: .*nowhere"),
        ("adapter={from: nowhere}", r"models\.mentor: adapter\.from: there is no folder nowhere"),
    ],
)
def test_mistakes_name_the_model(
    experiment_file: Path, tiny_gpt2: Path, settings: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        simulated(experiment_file, tiny_gpt2, f"models.mentor.{settings}")


def test_a_frozen_classifier_needs_outputs(experiment_file: Path, tiny_bert: Path) -> None:
    words = [f"model.model_name_or_path={tiny_bert}"]
    with pytest.raises(UserError, match=r"models\.mentor: .* is frozen, and its outputs are not"):
        simulated(experiment_file, tiny_bert, *words)
    made = simulated(experiment_file, tiny_bert, *words, "models.mentor.adapter=lora")
    assert made.clients["silo-1"].learner.models["mentor"].backbone is made.learner.backbone
