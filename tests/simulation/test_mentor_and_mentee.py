"""FedKD and FedCoLLM in whole runs on tiny models: what is sent, what is kept, what is refused."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.client import respond
from hanse.journal import run_folder
from hanse.learners.models.tokenizers import tokenizer_files
from hanse.simulation import in_process
from hanse.simulation import run as simulation
from hanse.tensors.serialization import unpack
from samples import reviews, write_lines
from stopping import ctrl_c

KEEP = "train.optimizer_state=keep"


def fedkd(
    model: Path, *words: str, adapter: str = "{lora: {r: 4, lora_dropout: 0.1}}"
) -> list[str]:
    mentor = f"{{model_name_or_path: {model}, bf16: false, adapter: {adapter}}}"
    return [f"models={{mentor: {mentor}}}", "algorithm=fedkd", *words]


def fedcollm(model: Path, folder: Path, settings: str, *words: str) -> list[str]:
    public = write_lines(folder / "public.jsonl", reviews(24, seed=5))
    large = f"{{model_name_or_path: {model}, bf16: false, adapter: {{lora: {{r: 2}}}}}}"
    algorithm = f"algorithm={{fedcollm: {settings}}}"
    return [f"models={{large: {large}}}", algorithm, f"data.public={public}", *words]


def run(file: Path, words: list[str], *more: str) -> Path:
    return simulation.run(load(file, [*words, *more]))


def files(folder: Path, pattern: str) -> dict[str, str]:
    """The hashes of a run's files that match a pattern."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
    }


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(resources, "load", refused)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_a_stopped_run_of_mentors_goes_on_bit_for_bit(
    experiment_file: Path, tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path, base: str
) -> None:
    """With a mentor on the mentee's own base model, and with one on another."""
    model = tiny_llama if base == "llama" else tiny_gpt2
    words = fedkd(model, KEEP, "algorithm.fedkd={hidden_states: true, attention_maps: true}")
    whole, stopped = run(experiment_file, words), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, words, f"output_dir={stopped}")
    simulation.resume(stopped, trusted=True)
    for pattern in ("adapter_model.safetensors", "clients/**/*.safetensors"):
        assert files(stopped, pattern) == files(whole, pattern) != {}
    assert scores(stopped) == scores(whole) != {}


def scores(folder: Path) -> dict[tuple[str, str], float]:
    """The clients' last scores, without their seconds."""
    own = run_folder.read_rounds(folder)[-1].client_test
    return {(c, n): v for c, by_name in own.items() for n, v in by_name.items() if n != "seconds"}


def test_only_the_mentee_is_sent_and_by_svd(
    experiment_file: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[bytes] = []

    def tapped(endpoint: Any, message: bytes) -> bytes:
        messages.extend([message, respond(endpoint, message)])
        return messages[-1]

    monkeypatch.setattr(in_process, "respond", tapped)
    folder = run(experiment_file, fedkd(tiny_gpt2, "compression={upload: [svd]}"))
    sent = {content(t) for m in messages for t in safetensors.torch.load(bytes(m)).values()}
    memories = list((folder / "clients").glob("*/*.safetensors"))
    kept = {
        content(tensor)
        for file in memories
        for name, tensor in unpack(file.read_bytes(), "memory")[2]["algorithm"].items()
        if name.startswith("mentor.")
    }
    assert len(memories) >= 6 and len(kept) > 10 and len(sent) > 10 and not kept & sent
    names = {name for m in messages for name in safetensors.torch.load(bytes(m))}
    assert not [name for name in names if "mentor" in name or "transformer.h" in name]


def content(tensor: Any) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def test_a_large_model_learns_at_the_server_and_survives_a_stop(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    words = fedcollm(tiny_gpt2, tmp_path, "{public_steps: 4, initial_steps: 2}", KEEP)
    whole, stopped = run(experiment_file, words), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, words, f"output_dir={stopped}")
    simulation.resume(stopped, trusted=True)
    for pattern in ("adapter_model.safetensors", "state/**/*.safetensors"):
        assert files(stopped, pattern) == files(whole, pattern) != {}


def test_without_public_steps_it_is_fedavg_of_the_small_model(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    ours = run(experiment_file, fedcollm(tiny_gpt2, tmp_path, "{public_steps: 0}"))
    plain = run(experiment_file, ["algorithm=fedavg"], f"output_dir={tmp_path / 'plain'}")
    pattern = "adapter/adapter_model.safetensors"
    assert files(ours, pattern) == files(plain, pattern) != {}
    steps = fedcollm(tiny_gpt2, tmp_path, "{public_steps: 1}", f"output_dir={tmp_path / 'steps'}")
    assert files(run(experiment_file, steps), pattern) != files(plain, pattern)


def refused(file: Path, words: list[str]) -> str:
    with pytest.raises(UserError) as error:
        simulate(load(file, words))
    return str(error.value)


def test_a_run_without_its_mentor_is_refused(experiment_file: Path) -> None:
    message = refused(experiment_file, ["algorithm=fedkd"])
    assert "the algorithm fedkd uses a model called mentor, and `models` has none" in message


def test_a_frozen_mentor_is_refused_before_it_is_loaded(experiment_file: Path) -> None:
    message = refused(experiment_file, fedkd(Path("nowhere"), adapter="none"))
    assert "give it one, such as models.mentor.adapter=lora" in message
    own = "clients={silo-2: {models: {mentor: {adapter: none}}}}"
    message = refused(experiment_file, fedkd(Path("nowhere"), own))
    assert "clients.silo-2.models.mentor.adapter=lora" in message


@pytest.mark.usefixtures("nothing_loads")
def test_unequal_tokens_are_refused_by_the_names_of_both(
    experiment_file: Path, tiny_llama: Path, tiny_bert: Path, other_llama: Path, tmp_path: Path
) -> None:
    other = other_llama
    unlike = f"trained model ({tiny_llama}), but their tokenizers have unlike vocabularies"
    message = refused(experiment_file, fedkd(other))
    assert f"models.mentor ({other}) gets" in message and unlike in message
    own = f"clients={{silo-2: {{models: {{mentor: {{model_name_or_path: {other}}}}}}}}}"
    message = refused(experiment_file, fedkd(tiny_llama, own))
    assert f"models.mentor ({other}) gets" in message and unlike in message
    message = refused(experiment_file, fedkd(tiny_bert))
    assert "is no causal language model and the trained model is a causal" in message
    message = refused(experiment_file, fedcollm(other, tmp_path, "{public_steps: 1}"))
    assert f"models.large ({other}) gets" in message and unlike in message


def test_unequal_tokens_are_refused_in_memory_if_no_tokenizer_was_there_before(
    experiment_file: Path,
    tiny_bert: Path,
    other_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(path: str) -> None:
        raise UserError(f"the tokenizer of {path} is missing.")

    monkeypatch.setattr(tokenizer_files, "find", missing)
    message = refused(experiment_file, fedkd(tiny_bert))
    assert "is an encoder and the trained model is a causal language model" in message
    message = refused(experiment_file, fedkd(other_llama))
    assert "unlike vocabularies" in message
    message = refused(experiment_file, fedcollm(other_llama, tmp_path, "{}"))
    assert "models.large" in message and "unlike vocabularies" in message


def test_a_mentor_that_reads_shorter_rows_is_refused(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = shutil.copytree(tiny_llama, tmp_path / "short")
    config = (short / "config.json").read_text()
    assert '"max_position_embeddings": 256' in config
    shorter = config.replace('"max_position_embeddings": 256', '"max_position_embeddings": 64')
    (short / "config.json").write_text(shorter)
    with monkeypatch.context() as patched:
        patched.setattr(resources, "load", None)
        message = refused(experiment_file, fedkd(short))
    assert "up to 256, but it reads at most 64; set model.max_length to 64 or less" in message
    simulate(load(experiment_file, fedkd(short, "model.max_length=64")))


def test_a_mentor_smaller_than_its_mentee_is_remarked(
    experiment_file: Path, tiny_llama: Path, tiny_gpt2: Path
) -> None:
    """The GPT-2 has more weights than the Llama, since it learns places."""
    remarks = simulate(load(experiment_file, fedkd(tiny_gpt2))).dataset.remarks
    assert not [remark for remark in remarks if "smaller" in remark]
    exchanged = fedkd(tiny_llama, f"model.model_name_or_path={tiny_gpt2}")
    remarks = simulate(load(experiment_file, exchanged)).dataset.remarks
    [remark] = [remark for remark in remarks if "smaller" in remark]
    assert "models.mentor" in remark and "exchange the two" in remark
