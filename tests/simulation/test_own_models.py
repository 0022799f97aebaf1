"""The models that clients keep, and those beside the server's, saved and scored."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.simulation import run as simulation
from hanse.tensors.serialization import unpack
from samples import reviews, write_lines

WEIGHTS = "adapter_model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT by itself


def run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, words))


def beside(name: str, model: Path) -> str:
    return f"models={{{name}: {{model_name_or_path: {model}, bf16: false, adapter: lora}}}}"


@pytest.fixture
def mentored(experiment_file: Path, tiny_gpt2: Path) -> Path:
    return run(experiment_file, beside("mentor", tiny_gpt2), "algorithm=fedkd")


def kept(folder: Path, client: str) -> dict[str, Tensor]:
    """The mentor's tensors in a client's memory after the last round."""
    file = max((folder / "clients" / client).glob("*.safetensors"))
    memory = unpack(file.read_bytes(), "memory")[2]["algorithm"]
    return {n.removeprefix("mentor."): t for n, t in memory.items() if n.startswith("mentor.")}


def test_each_clients_mentor_is_an_adapter_of_its_own_base(mentored: Path, tiny_gpt2: Path) -> None:
    folders = {
        file.parent.parent.name: file.parent for file in mentored.glob(f"clients/*/*/{WEIGHTS}")
    }
    assert folders.keys() == {"silo-1", "silo-2", "silo-3"}
    texts = set()
    for name, folder in folders.items():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_gpt2), folder)
        loaded = {tuple(t.flatten().tolist()) for n, t in model.named_parameters() if "lora_" in n}
        expected = {tuple(t.flatten().tolist()) for t in kept(mentored, name).values()}
        assert expected and expected <= loaded
        texts.add((folder / WEIGHTS).read_bytes())
    assert len(texts) == 3


def test_clients_that_keep_what_the_server_has_save_nothing(experiment_file: Path) -> None:
    folder = run(experiment_file, "algorithm=fedavg", "rounds=1")
    assert not list(folder.glob("clients/*/adapter"))


def test_a_client_keeps_the_tensors_that_it_does_not_share(experiment_file: Path) -> None:
    folder = run(experiment_file, "algorithm={fedper: {share: [lora_A]}}", "rounds=1")
    own = [load_file(file) for file in sorted(folder.glob(f"clients/*/adapter/{WEIGHTS}"))]
    server = load_file(folder / "adapter" / WEIGHTS)
    assert len(own) == 3
    for name in server:
        alike = [torch.equal(tensors[name], server[name]) for tensors in own]
        assert alike == [".lora_A." in name] * 3, name


def test_a_large_model_of_the_server_is_scored_and_saved(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    public = write_lines(tmp_path / "public.jsonl", reviews(24, seed=5))
    words = "algorithm={fedcollm: {public_steps: 3}}", f"data.public={public}"
    folder = run(experiment_file, beside("large", tiny_gpt2), *words, "evaluation.test=true")
    first, last = (run_folder.read_rounds(folder)[place].test for place in (0, -1))
    small = {name for name in last if not name.startswith("large.")}
    assert small and {f"large.{name}" for name in small} == last.keys() - small
    assert first["large.loss"] != last["large.loss"] != last["loss"]
    number = run_folder.read_rounds(folder)[-1].round
    task = next(iter(folder.glob("scores/test-large.*"))).name.split("-")[1]
    assert (
        run_folder.read_evaluation(folder, f"test-{task}", number).metrics["large.loss"]
        == (last["large.loss"])
    )
    state = folder / "models" / "large"
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_gpt2), state)
