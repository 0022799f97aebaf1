"""Strain test: an owner's emulator is sent once, and adapters trained on it are averaged."""

import logging
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.content_hash import content_hash
from hanse.errors import StoppedError, UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_memory import MemoryStore
from hanse.federation.delivery import file_store, files
from hanse.federation.delivery.files import HELD, OFFSET
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import PREPARE, ClientProfile, Reply, Request
from hanse.federation.method import Method
from hanse.journal.run_folder import read_ledger
from hanse.planning.preview.estimate import preview
from hanse.security import trusted_code
from hanse.simulation import run as simulation
from parts import owner_emulator
from parts.owner_emulator import OwnerEmulator
from samples import ROOT
from toys import Meddler, Outcome, federate, same, silos, with_tensors

CHUNK = 16


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK", CHUNK)


def go(folder: Path, **settings: Any) -> Outcome:
    return federate(OwnerEmulator(), silos(3), folder, **settings)


def size(folder: Path) -> int:
    return (folder / "files" / "emulator.safetensors").stat().st_size


def sent(messages: list[bytes]) -> list[tuple[bool, int]]:
    """The requests of the kind `prepare`: whether each has a chunk, and its round."""
    requests = [Request.parse(message) for message in messages]
    return [(OFFSET in r.instruction.numbers, r.round) for r in requests if r.kind == PREPARE]


def meddling(**settings: Any) -> tuple[list[Meddler], Callable[[Transport], Transport]]:
    """A network that keeps what passes, and the list in which it can be found."""
    networks: list[Meddler] = []

    def network(inner: Transport) -> Transport:
        networks.append(Meddler(inner, **settings))
        return networks[0]

    return networks, network


class Tuned(FedAvg):
    """FedAvg from the tensors of a former run's owner."""

    folder: Path

    def init(self, server: Server) -> State:
        path = self.folder / "files" / "emulator.safetensors"
        return {"model": owner_emulator.emulator({"emulator": path})}


def test_sent_once_to_one_machine_and_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    networks, network = meddling()
    outcome = go(tmp_path / "run", network=network)
    chunks = -(-size(tmp_path / "run") // CHUNK)
    assert chunks > 8
    # all are offered the file, and the first client of this machine gets it
    assert Counter(sent(networks[0].requests)) == {(False, 1): 3 + 3, (True, 1): chunks}
    rows = [row for row in read_ledger(tmp_path / "run") if row.kind == PREPARE]
    assert [(row.client, row.round) for row in rows] == [("c0", 1), ("c1", 1), ("c2", 1)]
    assert rows[0].down > chunks / 2 * rows[1].down and rows[1].down == rows[2].down
    assert outcome.records[1].bytes.down > outcome.records[2].bytes.down + rows[0].down
    told = [name for name in ("c0", "c1", "c2") if f"{name} has the run's files" in caplog.text]
    assert told == ["c0", "c1", "c2"]
    # the rounds' sum, as FedAvg has it from the same start
    Tuned.folder = tmp_path / "run"
    plain = federate(Tuned(), silos(3), tmp_path / "plain")
    model = OwnerEmulator().model(outcome.server_state.algorithm_state)
    for name, tensor in plain.server_state.algorithm_state["model"].items():
        assert torch.allclose(model[name], tensor, atol=1e-6)
    assert [r.test for r in outcome.records[1:]] != [r.test for r in outcome.records[:-1]]


def test_resumed_with_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(tmp_path / "whole")
    go(tmp_path / "stopped", stop_after=1)

    def again(*arguments: Any) -> Any:
        raise AssertionError("the files are there")

    monkeypatch.setattr(OwnerEmulator, "prepare", again)
    networks, network = meddling()
    resumed = go(tmp_path / "stopped", network=network)
    assert same(whole.server_state, resumed.server_state)
    assert sent(networks[0].requests) == [(False, 2)] * 3  # the server asks, nothing is sent
    (tmp_path / "stopped" / "files" / "emulator.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="missing or damaged"):
        go(tmp_path / "stopped", rounds=4)


def _killed(folder: Path) -> None:
    """Run until the third chunk is on the disk, and end as by kill -9."""
    append, count = file_store.atomic_files.append, Counter[str]()

    def counting(*arguments: Any, **more: Any) -> None:
        append(*arguments, **more)
        count["chunks"] += arguments[0].suffix == file_store.PART
        if count["chunks"] == 3:
            os._exit(9)

    file_store.atomic_files.append = counting
    files.CHUNK = CHUNK
    torch.set_num_threads(1)
    go(folder)


def test_killed_at_half_of_a_file_it_goes_on_there(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(tmp_path / "run",))
    process.start()
    process.join()
    assert process.exitcode == 9
    [part] = (tmp_path / "run" / "clients" / "files").iterdir()
    assert part.suffix == ".part" and part.stat().st_size == 3 * CHUNK
    networks, network = meddling()
    outcome = go(tmp_path / "run", network=network)
    chunks = -(-size(tmp_path / "run") // CHUNK)
    assert Counter(sent(networks[0].requests))[True, 1] == chunks - 3
    assert same(outcome.server_state, go(tmp_path / "whole").server_state)


def test_a_client_that_lost_the_file_gets_it_again(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")

    def losing(request: Request) -> None:
        if (request.kind, request.round) == ("train", 2):
            shutil.rmtree(tmp_path / "run" / "clients" / "files", ignore_errors=True)

    networks: list[Meddler] = []

    def network(inner: Transport) -> Transport:
        networks.append(Losing(inner, losing))
        return networks[0]

    outcome = go(tmp_path / "run", network=network)
    assert same(whole.server_state, outcome.server_state)
    chunks = -(-size(tmp_path / "run") // CHUNK)
    assert Counter(sent(networks[0].requests))[True, 2] == chunks
    lost = [reply for m in networks[0].replies if (reply := Reply.parse(m)).lacks]
    assert {(reply.client, reply.kind, reply.round) for reply in lost} >= {("c0", "train", 2)}
    assert not [row for row in read_ledger(tmp_path / "run") if row.error]


class Losing(Meddler):
    """A network that tells of the first request of each kind and round before it is sent."""

    def __init__(self, inner: Transport, tell: Callable[[Request], None]) -> None:
        super().__init__(inner)
        self.tell, self._told = tell, set[tuple[str, int]]()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if (request.kind, request.round) not in self._told:
            self._told.add((request.kind, request.round))
            self.tell(request)
        super().send(client, message)


def _lying(lie: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Reply], Reply]:
    def changed(reply: Reply) -> Reply:
        if (reply.client, reply.kind) != ("c1", PREPARE):
            return reply
        return with_tensors(reply, {HELD: lie(reply.update.tensors[HELD])})

    return changed


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda held: held + 1, "of emulator"),
        (lambda held: held * 0 - 1, "of emulator"),
        (lambda held: held * 0, "does not keep what it is sent"),
        (lambda held: held.repeat(2), "held came as (2,)"),
        (lambda held: held.float(), "held came as"),
    ],
)
def test_a_client_that_lies_about_the_file_is_left_out(
    tmp_path: Path, lie: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    _, network = meddling(changed=_lying(lie))
    outcome = go(tmp_path / "run", rounds=1, network=network)
    assert outcome.records[1].clients == ("c0", "c2")
    row, _ = [row for row in read_ledger(tmp_path / "run") if row.client == "c1"]  # train, evaluate
    assert row.kind == PREPARE and reason in row.error


def test_a_client_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    _, network = meddling(lost=lambda *request: request == ("c1", PREPARE, 1))
    outcome = go(tmp_path / "run", rounds=2, network=network)
    assert [record.clients for record in outcome.records[1:]] == [("c0", "c2"), ("c0", "c1", "c2")]
    _, network = meddling(lost=lambda client, kind, round: (client, kind) == ("c1", PREPARE))
    with pytest.raises(UserError, match="only 2 of 3 clients' updates"):
        go(tmp_path / "quorum", quorum=3, network=network)


def test_files_for_an_algorithm_that_has_none_are_refused(tmp_path: Path) -> None:
    """A server of this version never offers them, so they come from an odd one."""
    go(tmp_path / "run", rounds=1)
    offer = files.read(tmp_path / "run").offer(1).pack()
    toy = silos(1)["c0"]
    endpoint = ClientEndpoint(
        ClientProfile("c0", 8), toy, Method(FedAvg(), Mean()), {}, MemoryStore(tmp_path / "c0"), 0
    )
    assert "the parts of this run have none" in Reply.parse(respond(endpoint, offer)).error


PART = f"{ROOT / 'tests' / 'parts' / 'owner_emulator.py'}:OwnerEmulator"


@pytest.fixture
def experiment(experiment_file: Path) -> Experiment:
    trusted_code.grant(ROOT / "tests" / "parts" / "owner_emulator.py", lasting=False)
    return load(experiment_file, [f"algorithm={PART}", "rounds=2", "train.max_steps=1"])


def test_real_models_resume_alike(experiment: Experiment, tmp_path: Path) -> None:
    def run(name: str, stop: threading.Event | None = None) -> Path:
        place = {"output_dir": str(tmp_path / name)}
        return simulation.run(experiment.model_copy(update=place), stop=stop)

    whole, stop = run("whole"), threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        run("stopped", stop)
    adapters = [whole, simulation.resume(tmp_path / "stopped", trusted=True)]
    assert len({content_hash(f / "adapter" / "adapter_model.safetensors") for f in adapters}) == 1


def test_check_predicts_the_bytes_of_the_files(experiment: Experiment) -> None:
    found = preview(experiment)
    folder = simulation.run(experiment)
    rows = [row for row in read_ledger(folder) if row.kind == PREPARE]
    assert found.once == max(row.down for row in rows) > size(folder)
    for row in read_ledger(folder):
        if row.kind == "train":
            assert row.down == found.traffic["train"][row.client].down


class Continued(FedAvg):
    """Trains the server's tensors in `prepare`, and begins with what the learner has then."""

    def prepare(self, server: Server, folder: Path) -> dict[str, Path]:
        server.learner.fit()
        (folder / "file").write_bytes(b"123")
        return {"file": folder / "file"}


def test_a_server_killed_after_prepare_begins_with_the_same_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    whole = federate(Continued(), silos(3), tmp_path / "whole", rounds=1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FedAvg, "init", killed)
        federate(Continued(), silos(3), tmp_path / "killed", rounds=1)
    assert (tmp_path / "killed" / "files").is_dir()
    resumed = federate(Continued(), silos(3), tmp_path / "killed", rounds=1)
    assert same(resumed.server_state, whole.server_state)
