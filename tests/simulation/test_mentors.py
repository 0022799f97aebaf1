"""Runs with a model beside the trained one: it learns, stays where it is, and survives a stop."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import Tensor

from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.loading import load
from hanse.federation.client import respond
from hanse.journal import run_folder
from hanse.simulation import in_process
from hanse.simulation import run as simulation
from hanse.tensors.serialization import Content
from samples import ROOT, reviews, write_lines
from stopping import ctrl_c

PART = ROOT / "tests" / "parts" / "mentors.py"
KEEP = "train.optimizer_state=keep"


@pytest.fixture
def mentored(experiment_file: Path, tiny_gpt2: Path) -> Path:
    """The experiment with a GPT-2 as its mentor."""
    return with_mentor(experiment_file, f"{{model_name_or_path: {tiny_gpt2}, bf16: false, "
                       "adapter: {lora: {r: 2}}}")  # fmt: skip


def with_mentor(file: Path, mentor: str, part: str = "Mentored") -> Path:
    text = f"algorithm: '{PART}:{part}'\nmodels: {{mentor: {mentor}}}\n"
    file.write_text(file.read_text() + text)
    return file


def run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, words))


def files(folder: Path, pattern: str) -> dict[str, str]:
    """The hashes of a run's files that match a pattern."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
    }


def test_the_mentor_learns_from_round_to_round(mentored: Path) -> None:
    folder = run(mentored, "rounds=4", "train.max_steps=20")
    losses = [record.train["mentor_loss"] for record in run_folder.read_rounds(folder)[1:]]
    assert losses[3] < 0.8 * losses[0], losses


def test_it_changes_nothing_of_the_trained_model(mentored: Path, tmp_path: Path) -> None:
    one_by_one = "clients_per_pass=off"
    folder = run(mentored, one_by_one)
    plain = run(
        mentored, "algorithm=fedavg", "models={}", one_by_one, f"output_dir={tmp_path / 'plain'}"
    )
    assert files(folder, "adapter_model.safetensors") == files(plain, "adapter_model.safetensors")


@pytest.mark.parametrize(("part", "group"), [("Mentored", "clients"), ("MentoredServer", "state")])
def test_a_stopped_run_goes_on_bit_for_bit(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path, part: str, group: str
) -> None:
    mentor = f"{{model_name_or_path: {tiny_gpt2}, bf16: false, adapter: lora}}"
    file = with_mentor(experiment_file, mentor, part)
    words = [KEEP]
    if part == "MentoredServer":
        words += [f"data.public={write_lines(tmp_path / 'public.jsonl', reviews(24, seed=5))}"]
    whole, stopped = run(file, *words), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(file, *words, f"output_dir={stopped}")
    simulation.resume(stopped, trusted=True)
    for pattern in ("adapter_model.safetensors", f"{group}/**/*.safetensors"):
        assert files(stopped, pattern) == files(whole, pattern) != {}


def test_its_optimizer_goes_on_where_it_was(mentored: Path, tmp_path: Path) -> None:
    [kept, reset] = (
        [record.train["mentor_loss"] for record in run_folder.read_rounds(folder)[1:]]
        for folder in (run(mentored, KEEP), run(mentored, f"output_dir={tmp_path / 'reset'}"))
    )
    assert kept[0] == reset[0] and kept[2] != reset[2]
    names = [
        name
        for file in (mentored.parent / "run" / "clients").rglob("round-00003*.safetensors")
        for name in safetensors.torch.load_file(file)
    ]
    assert any(name.startswith("optimizer.mentor/") for name in names), names[:5]
    assert any(name.startswith("optimizer/") for name in names)


def test_no_tensor_of_it_crosses_the_network(
    mentored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[bytes] = []

    def tapped(endpoint: Any, message: bytes) -> bytes:
        messages.extend([message, respond(endpoint, message)])
        return messages[-1]

    monkeypatch.setattr(in_process, "respond", tapped)
    folder = run(mentored)
    sent = {content(tensor) for message in messages for tensor in parsed(message).values()}
    memories = [parsed(file.read_bytes()) for file in (folder / "clients").glob("*/*.safetensors")]
    kept = {content(t) for memory in memories for n, t in memory.items() if n.startswith("algo")}
    assert len(memories) >= 6 and len(kept) > 10 and len(sent) > 10
    assert not kept & sent
    names = {name for message in messages for name in parsed(message)}
    assert not [name for name in names if "mentor" in name or "transformer.h" in name]


def parsed(data: Content) -> dict[str, Tensor]:
    return safetensors.torch.load(bytes(data[:]))


def content(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(("same", "loaded"), [(False, 2), (True, 1)])
def test_a_base_model_is_loaded_once_for_all(
    experiment_file: Path,
    tiny_llama: Path,
    tiny_gpt2: Path,
    monkeypatch: pytest.MonkeyPatch,
    same: bool,
    loaded: int,
) -> None:
    calls: list[object] = []
    original = resources.load

    def counted(settings: Any, *rest: Any) -> Any:
        calls.append(settings)
        return original(settings, *rest)

    monkeypatch.setattr(resources, "load", counted)
    model = tiny_llama if same else tiny_gpt2
    mentor = f"{{model_name_or_path: {model}, bf16: false, adapter: {{lora: {{r: 4}}}}}}"
    folder = run(with_mentor(experiment_file, mentor), "train.max_steps=20")
    assert len(calls) == loaded
    losses = [record.train["mentor_loss"] for record in run_folder.read_rounds(folder)[1:]]
    assert losses[2] < losses[0]


def test_an_objective_learns_from_a_frozen_mentor(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """On one base model, whose adapter the mentor lacks: the loss pulls the model back to it."""
    text = experiment_file.read_text().replace("objective: classify\n", "")
    mentor = f"models: {{mentor: {{model_name_or_path: {tiny_llama}, bf16: false}}}}\n"
    experiment_file.write_text(text + mentor + f"objective: '{PART}:Taught'\n")
    taught = run(experiment_file)
    plain = run(
        experiment_file, "objective=classify", "models={}", f"output_dir={tmp_path / 'plain'}"
    )
    changes = [
        sum(float(t.norm()) for n, t in parsed(file.read_bytes()).items() if "lora_B" in n)
        for folder in (taught, plain)
        for file in [folder / "adapter" / "adapter_model.safetensors"]
    ]
    assert 0 < changes[0] < changes[1]


def test_a_run_of_a_version_without_named_models_is_resumed(experiment_file: Path) -> None:
    folder = run(experiment_file)
    before = files(folder, "adapter_model.safetensors")
    (folder / "report.html").unlink()
    text = (folder / "experiment.yaml").read_text()
    former = text.replace("models: {}\n", "").replace("  public: null\n", "")
    assert len(former.splitlines()) == len(text.splitlines()) - 2
    (folder / "experiment.yaml").write_text(former)
    simulation.resume(folder)
    assert files(folder, "adapter_model.safetensors") == before


FORGETFUL = """
from parts.mentors import Mentored, replace


class Forgetful(Mentored):
    def train(self, instruction, client):
        mentor = client.learner.models["mentor"]
        pairs = [(t, mentor.initial()[name]) for name, t in mentor.tensors().items()]
        moved = max(float((t - first).abs().max()) for t, first in pairs)
        mentor.fit()
        update = super(Mentored, self).train(instruction, client)
        return replace(update, numbers={**update.numbers, "moved": moved})
"""


def test_a_mentor_that_is_not_loaded_is_nobody_elses(mentored: Path, tmp_path: Path) -> None:
    """Clients share the place of its adapter, and a silo shares none: both must give the same."""
    part = tmp_path / "forgetful.py"
    part.write_text(FORGETFUL)
    folder = run(mentored, f"algorithm={part}:Forgetful")
    assert {record.train["moved"] for record in run_folder.read_rounds(folder)[1:]} == {0.0}
