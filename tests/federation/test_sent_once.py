"""LoRA-XS's factors come from the server: whoever else would compute them does not need to."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from hanse import errors
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.federation.client import respond
from hanse.federation.exchange.round import RoundExchange, open_round
from hanse.federation.messages import Reply, Request
from hanse.federation.server import start
from hanse.journal.run_folder import Journal, read_ledger
from hanse.learners.adapters.peft import Peft
from hanse.learners.injection.tuners import lora_xs
from hanse.learners.load import load as load_model
from hanse.learners.models.settings import BaseModelSettings
from hanse.planning.preview.estimate import preview
from hanse.serving import trained_adapter
from hanse.simulation import run as simulation
from hanse.simulation.in_process import in_process

XS = "adapter={lora_xs: {r: 8}}"
VERA = "adapter={peft: {method: vera, settings: {r: 4}}}"


def _never(matrix: torch.Tensor, rank: int) -> NoReturn:
    raise AssertionError("who gets the factors does not compute them")


def _exchange(made: Simulation, folder: Path) -> RoundExchange:
    """The first round of a federation, as its server begins it."""
    journal = Journal(folder)
    run = made.run(journal, in_process(made, journal.folder))
    profiles = {profile.name: profile for profile in made.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    journal.close()
    return exchange


def _answer(made: Simulation, memories: Path, request: Request) -> Reply:
    return Reply.parse(respond(made.endpoint(memories, "silo-2"), request.pack()))


@pytest.mark.parametrize("algorithm", ["fedavg", "fed_sb"])
def test_a_silo_uses_the_very_bytes_of_the_server(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    experiment = load(experiment_file, [XS, f"algorithm={algorithm}", "clients_per_pass=off"])
    server = simulate(experiment)
    (tmp_path / "server").mkdir()
    request = _exchange(server, tmp_path / "server").encoded("train", "silo-2")
    wanted = _answer(server, tmp_path / "beside", request)
    monkeypatch.setattr(lora_xs, "first_vectors", _never)
    silo = simulate(experiment, Resources(), server.dataset, only=("silo-2",))
    found = _answer(silo, tmp_path / "silo", request)
    assert not found.error
    for name, tensor in wanted.update.tensors.items():
        assert torch.equal(found.update.tensors[name], tensor)
        assert bool(tensor.any())
    assert silo.clients["silo-2"].learner.constants().digest == request.constants

    # A process that comes after finds them on its disk; one that has lost it asks for them.
    later = replace(request, given={}, round=2)
    for memories, lacks in ((tmp_path / "silo", ""), (tmp_path / "anew", request.constants)):
        again = simulate(experiment, Resources(), server.dataset, only=("silo-2",))
        reply = _answer(again, memories, later)
        assert (reply.lacks, bool(reply.error)) == (lacks, bool(lacks))


def test_adapters_that_share_constants_both_have_them(tiny_llama: Path) -> None:
    backbone = load_model(BaseModelSettings(str(tiny_llama), bf16=False))
    names = [backbone.attach(Peft("vera", {"r": 4}), seed) for seed in (0, 1)]
    first, second = (backbone.constants(name) for name in names)
    assert first.tensors.keys() == second.tensors.keys() and len(first.tensors) == 2


def test_factors_of_another_shape_are_refused(experiment_file: Path, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    server = simulate(load(experiment_file, [XS, "clients_per_pass=off"]))
    request = _exchange(server, tmp_path / "server").encoded("train", "silo-2")
    other = simulate(load(experiment_file, ["adapter={lora_xs: {r: 7}}", "clients_per_pass=off"]))
    assert "not of one size" in _answer(other, tmp_path / "silo", request).error


@pytest.mark.parametrize("adapter", [XS, VERA, "adapter={lora: {r: 2}}"])
def test_check_predicts_what_is_sent_once(experiment_file: Path, adapter: str) -> None:
    experiment = load(experiment_file, [adapter])
    found = preview(experiment)
    folder = simulation.run(experiment)
    assert (found.once > 0) == (adapter in (XS, VERA))
    for row in read_ledger(folder):
        if row.kind == "train":
            once = found.once if row.round == 1 else 0
            assert row.down == found.traffic["train"][row.client].down + once
            assert row.up == found.traffic["train"][row.client].up


def test_a_run_goes_on_with_the_factors_that_it_began_with(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(name: str, stop: threading.Event | None = None) -> Any:
        words = [XS, "algorithm=fed_sb", "rounds=2", f"output_dir={tmp_path / name}"]
        return simulation.run(load(experiment_file, words), stop=stop)

    def digest(folder: Path) -> str:
        file = folder / "adapter" / "adapter_model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()

    whole, stop = go("whole"), threading.Event()
    stop.set()
    with pytest.raises(errors.StoppedError):
        go("stopped", stop)
    monkeypatch.setattr(lora_xs, "first_vectors", _never)
    unfinished = trained_adapter.find(tmp_path / "stopped")
    learner = unfinished.learner(Resources(), {})
    assert learner.constants().digest == unfinished.constants.digest != ""
    assert digest(simulation.resume(tmp_path / "stopped")) == digest(whole)


def test_an_unfinished_run_without_its_factors_is_not_read(
    experiment_file: Path, tmp_path: Path
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(errors.StoppedError):
        simulation.run(load(experiment_file, [XS]), stop=stop)
    [file] = (tmp_path / "run" / "constants").iterdir()
    file.unlink()
    with pytest.raises(UserError, match="is missing or damaged"):
        trained_adapter.find(tmp_path / "run")
