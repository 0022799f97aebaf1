"""A silo without the base model is sent it once, and the run ends as the simulated one."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hanse.deployment.silo.model_download import brings_model
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.federation.delivery import files
from hanse.federation.messages import Request
from hanse.journal.run_folder import read_ledger
from hanse.learners.models.model_hash import model_hash
from hanse.reports.run.page import write_report
from linked_silos import WorkerEngine, served, silo
from real_federation import digest, simulated
from samples import Outcome

NAMES = ("silo-1", "silo-2", "silo-3")
DELIVERED = ("num_clients=3", "rounds=2", "deployment.deliver_model=true")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr(files, "CHUNK", 50_000)


def parts(engine: WorkerEngine, name: str) -> list[Request]:
    """The chunks of the model that a silo was sent."""
    requests = [Request.parse(body) for body in engine.requests(name) if brings_model(body)]
    return [request for request in requests if request.instruction.tensors]


def test_silos_without_the_model_are_sent_it_once_and_train_as_in_the_simulation(
    experiment_file: Path,
    review_file: Path,
    tiny_llama: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    expected = simulated(experiment_file, tmp_path / "simulated", *DELIVERED)
    assert "deployment.deliver_model has no effect here" in caplog.text
    states = {name: tmp_path / name for name in NAMES}
    places = {"silo-3": tiny_llama}  # which has a copy of its own

    def engine() -> WorkerEngine:
        return WorkerEngine(
            *(
                silo(name, review_file, state, places.get(name), delivered_models="allow")
                for name, state in states.items()
            )
        )

    def run(folder: str, engine: WorkerEngine) -> Path:
        words = [*DELIVERED, "clients_per_pass=off", f"output_dir={tmp_path / folder}"]
        return served(load(experiment_file, words), engine)

    first = engine()
    folder = run("first", first)
    assert digest(folder) == expected
    sizes = {file.name: file.stat().st_size for file in tiny_llama.iterdir()}
    for name in ("silo-1", "silo-2"):
        sent = parts(first, name)
        assert sum(len(data) for part in sent for data in part.instruction.tensors.values()) == sum(
            sizes.values()
        )
        assert len(sent) > len(sizes)
        [model] = (states[name] / "models").iterdir()
        assert model.name == model_hash(model) == model_hash(tiny_llama)
        assert {file.stat().st_mode & 0o77 for file in model.iterdir()} == {0}
    assert not parts(first, "silo-3") and not (states["silo-3"] / "models").exists()
    assert "silo-3 has the server's base model already: nothing is sent" in caplog.text
    assert str(tiny_llama).encode() not in b"".join(body for _, body in first.sent)
    page = write_report(folder).read_text()
    assert "of files that 2 clients needed to train, in the bytes of their rounds" in page
    ledger = [record for record in read_ledger(folder) if record.kind == "prepare"]
    assert {record.client for record in ledger} == {"silo-1", "silo-2"}
    assert all(record.down > sum(sizes.values()) and not record.error for record in ledger)

    again = engine()
    assert digest(run("again", again)) == expected
    assert not any(parts(again, name) for name in NAMES)


def test_a_silo_that_is_killed_while_it_is_sent_the_model_goes_on_where_it_was(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    expected = simulated(experiment_file, tmp_path / "simulated", *DELIVERED)
    engine = WorkerEngine(
        *(silo(name, review_file, tmp_path / name, delivered_models="allow") for name in NAMES)
    )
    kills = {3, 5}  # before these chunks of silo-2

    def kill(name: str, request: bytes) -> None:
        count = len(parts(engine, "silo-2")) + 1
        if name == "silo-2" and request and brings_model(request) and count in kills:
            kills.discard(count)
            engine.restart("silo-2")

    engine.before = kill
    words = [*DELIVERED, "clients_per_pass=off", f"output_dir={tmp_path / 'run'}"]
    assert digest(served(load(experiment_file, words), engine)) == expected
    assert not kills
    sent = [
        (name, part.instruction.numbers[files.OFFSET])
        for part in parts(engine, "silo-2")
        for name in part.instruction.tensors
    ]
    assert len(sent) == len({*sent}) == len(parts(engine, "silo-1")), "no chunk was sent twice"


def test_a_server_that_is_stopped_while_it_sends_the_model_goes_on_where_it_was(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    expected = simulated(experiment_file, tmp_path / "simulated", *DELIVERED)
    engine = WorkerEngine(
        *(silo(name, review_file, tmp_path / name, delivered_models="allow") for name in NAMES)
    )
    words = [*DELIVERED, "clients_per_pass=off", f"output_dir={tmp_path / 'run'}"]
    experiment = load(experiment_file, words)

    def stop(name: str, request: bytes) -> None:
        if len(parts(engine, "silo-1")) == 3:
            raise RuntimeError("the server is gone")

    engine.before = stop
    with pytest.raises(RuntimeError, match="the server is gone"):
        served(experiment, engine)
    engine.before = lambda name, request: None
    engine.begin()
    assert digest(served(experiment, engine)) == expected
    for name in NAMES:
        sent = [
            (file, part.instruction.numbers[files.OFFSET])
            for part in parts(engine, name)
            for file in part.instruction.tensors
        ]
        assert len(sent) == len({*sent}), "no chunk was sent twice"


def test_a_damaged_model_is_found_and_sent_again(
    experiment_file: Path, review_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = [tmp_path / name for name in NAMES]
    for number in (1, 2):
        engine = WorkerEngine(
            *(
                silo(state.name, review_file, state, delivered_models="allow", max_runs_per_day=9)
                for state in states
            )
        )
        words = [*DELIVERED, "clients_per_pass=off", f"output_dir={tmp_path / f'run-{number}'}"]
        served(load(experiment_file, words), engine)
        assert bool(parts(engine, "silo-1")) and bool(parts(engine, "silo-2")) == (number == 1)
        [model] = (states[0] / "models").iterdir()
        weights = model / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    assert f"{model} is damaged and was removed" in caplog.text


def test_no_tensor_of_a_model_that_only_the_server_has_is_in_any_message(
    experiment_file: Path, review_file: Path, tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    engine = WorkerEngine(
        *(silo(name, review_file, tmp_path / name, delivered_models="allow") for name in NAMES)
    )
    large = shutil.copytree(tiny_gpt2, tmp_path / "large")
    drawn = load_file(tiny_gpt2 / "model.safetensors")  # by the same generator as the other model
    scaled = {name: 1.25 * tensor for name, tensor in drawn.items()}
    save_file(scaled, large / "model.safetensors", {"format": "pt"})
    words = [
        *(*DELIVERED, "clients_per_pass=off", f"output_dir={tmp_path / 'run'}"),
        *("algorithm=fedcollm", f"data.public={review_file}"),
        f"models={{large: {{model_name_or_path: {large}, adapter: {{lora: {{r: 2}}}}}}}}",
    ]
    served(load(experiment_file, words), engine)
    crossed = b"".join([*(body for _, body in engine.sent), *engine.replies])
    chunks = b"".join(
        data.numpy().tobytes()
        for part in parts(engine, "silo-1")
        for data in part.instruction.tensors.values()
    )

    def canaries(folder: Path) -> list[bytes]:
        tensors = load_file(folder / "model.safetensors").values()
        drawn = [tensor.flatten() for tensor in tensors if tensor.std() > 0]
        return [tensor[:32].view(torch.uint8).numpy().tobytes() for tensor in drawn]

    assert len(canaries(large)) == 10
    assert all(canary in chunks for canary in canaries(tiny_llama)), "the check sees what is sent"
    assert not any(canary in crossed for canary in canaries(large))
    assert str(large).encode() not in crossed


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({}, "is not on its machine, and by policy.delivered_models it is sent none"),
        ({"delivered_models": "allow", "models": ("5e" * 32,)}, ", which it does not allow"),
        (
            {"delivered_models": "allow", "max_model_gb": 1e-5},
            "and its policy has max_model_gb 1e-05",
        ),
    ],
)
def test_a_silo_refuses_before_anything_is_downloaded(
    experiment_file: Path,
    review_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, object],
    sentence: str,
) -> None:
    monkeypatch.setattr("hanse.deployment.server.timers.RETRY_AFTER", 0.0)
    monkeypatch.setattr("hanse.deployment.server.remote_clients.STEP", 0.0)
    engine = WorkerEngine(silo("silo-1", review_file, tmp_path / "silo-1", **policy))
    words = [*DELIVERED, "deployment.quorum=1", f"output_dir={tmp_path / 'run'}"]

    engine.most = 9
    with pytest.raises(AssertionError, match="stuck"):
        served(load(experiment_file, words), engine)
    assert not parts(engine, "silo-1") and not (tmp_path / "silo-1" / "models").exists()
    assert sentence in (tmp_path / "silo-1" / "refusals.jsonl").read_text()


def test_what_is_sent_is_previewed_and_what_cannot_be_is_refused_before_it_is_loaded(
    hanse: Callable[..., Outcome], experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    size = sum(file.stat().st_size for file in tiny_llama.iterdir())
    shown = " ".join(hanse("check", experiment_file, *DELIVERED).out.split())
    assert f"once: {size:,} bytes of the model down to each silo that lacks it" in shown
    own = f"clients={{silo-1: {{model: {{model_name_or_path: {tiny_llama}}}}}}}"
    words = [*DELIVERED, f"output_dir={tmp_path / 'run'}"]
    experiment = load(experiment_file, [*words, own])
    with pytest.raises(UserError, match=r"sends all silos the same model, and clients\.silo-1 has"):
        served(experiment, WorkerEngine())
    with pytest.raises(UserError, match="is the name of a model on a hub"):
        served(load(experiment_file, [*words, "model.model_name_or_path=a/b"]), WorkerEngine())
    assert not (tmp_path / "run").exists()
