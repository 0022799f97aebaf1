"""Secure sums of silos with policies and keys of their own, with no network between them."""

import contextlib
import json
import logging
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from hanse.deployment.server import remote_clients, serve, timers
from hanse.deployment.silo import settings
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import JobRefusedError
from hanse.deployment.silo.worker import SiloWorker
from hanse.deployment.sockets import Frame
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal.run_folder import read_rounds
from hanse.journal.yaml_text import dump
from hanse.security import kits, members
from real_federation import SILOS, TRUSTING
from samples import ROOT

WORDS = ["num_clients=4", "clients_per_pass=off", "rounds=1", "deployment.quorum=3"]


class Engine:
    """Passes bytes to workers of this process, each of which is a node."""

    def __init__(self, workers: Mapping[str, SiloWorker]) -> None:
        self.workers = dict(enumerate(workers.values(), start=1))
        self.events: deque[Frame] = deque([({"is": "nodes", "nodes": [*self.workers]}, b"")])

    def send(self, node: int, ticket: int, body: bytes) -> None:
        answer = self.workers[node].answer(body)
        self.events.append(({"is": "reply", "ticket": ticket}, answer))

    def event(self, seconds: float) -> Frame | None:
        return self.events.popleft() if self.events else None


class World:
    """A server and four silos with kits, whose policies a test chooses."""

    def __init__(self, home: Path, experiment: Path, rows: Path) -> None:
        self.home, self.experiment, self.rows = home, experiment, rows
        self.rule = f"{shutil.copy(ROOT / 'tests' / 'parts' / 'leaving.py', home)}:Leaving"
        self.policies: dict[str, dict[str, Any]] = {name: {} for name in SILOS}
        self.models: dict[str, str] = {}
        self.server = home / "kit"
        kits.init(self.server, [], 30)
        for name in SILOS:
            kits.enrol(self.server, kits.make_keys(home / f"kit-{name}", name))
            for file in ("ca.crt", "server.pub"):
                shutil.copy(self.server / file, home / f"kit-{name}" / file)
        bundle = home / "members.pub"
        bundle.write_text(members.written(kits.open_server(self.server)))
        for name in SILOS:
            members.trust(home / f"kit-{name}", bundle)

    def silo(self, name: str) -> settings.SiloSettings:
        policy = {**TRUSTING, "aggregators": ["secagg", self.rule], **self.policies[name]}
        values = {
            **{"name": name, "server": "127.0.0.1:8000", "kit": f"kit-{name}", "state": name},
            **{"data": {"path": str(self.rows)}, "policy": policy},
            "model": self.models.get(name),
        }
        file = self.home / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        return settings.load(file)

    def serve(self, *words: str) -> tuple[str, ...]:
        """Run an experiment of one round; the silos whose sum it has."""
        kit = {name: kits.open_silo(self.home / f"kit-{name}", name) for name in SILOS}
        engine = Engine({name: SiloWorker(self.silo(name), kit[name]) for name in SILOS})

        @contextlib.contextmanager
        def linked(*about: object) -> Iterator[Engine]:
            yield engine

        folder = self.home / "run"
        own = [*WORDS, f"aggregator={{{self.rule}: {{}}}}", f"output_dir={folder}", *words]
        address = serve.Address("127.0.0.1", 8000, self.server)
        with mock.patch.multiple(serve, _engine=linked, refuse_busy=mock.DEFAULT):
            serve.serve(load(self.experiment, own), address)
        return read_rounds(folder)[-1].clients

    def refusals(self, name: str) -> str:
        """The silo's own log of what it has refused."""
        file = self.home / name / "refusals.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return " ".join(json.loads(line)["reason"] for line in lines)


@pytest.fixture
def world(
    tmp_path: Path,
    experiment_file: Path,
    review_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> World:
    caplog.set_level(logging.INFO)
    for module in (remote_clients, timers):
        monkeypatch.setattr(module, "RETRY_AFTER", 0.0)
    (tmp_path / "world").mkdir()
    return World(tmp_path / "world", experiment_file, review_file)


def test_a_silo_that_demands_secure_sums_refuses_another_rule_before_it_trains(
    world: World,
) -> None:
    silo = world.silo("silo-1")
    guard = Guard(silo, kits.open_silo(world.home / "kit-silo-1", "silo-1"), "run")
    for rule in ("mean", "secagg"):
        job = dump(load(world.experiment, [*WORDS, f"aggregator={rule}"]).resolved()).encode()
        if rule == "secagg":
            guard.check_job(job)
            continue
        with pytest.raises(JobRefusedError, match="the aggregator mean is not among secagg"):
            guard.check_job(job)
    assert "the aggregator mean is not among secagg" in world.refusals("silo-1")


def test_a_least_cohort_pauses_the_round_until_enough_silos_are_there(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.policies["silo-1"] = {"min_cohort": 4}
    (world.home / "silo-4.keys.1").write_text("leave")
    assert world.serve() == tuple(SILOS)
    assert "silo-1 sees 3 silos advertise keys, itself included" in world.refusals("silo-1")
    assert "of at least 4 (policy.min_cohort of its silo.yaml)" in caplog.text
    assert "The run is paused" in caplog.text


def test_silos_that_all_refuse_after_one_has_left_pause_the_round(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.policies = {name: {"min_cohort": 4} for name in SILOS}
    (world.home / "silo-4.keys.1").write_text("leave")
    assert world.serve() == tuple(SILOS)
    assert "no client's update could be used in round 1" in caplog.text


def test_a_silo_with_another_key_of_a_peer_takes_no_part_and_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    other = kits.make_keys(world.home / "other", "silo-2")  # as if they were exchanged on the way
    (world.home / "kit-silo-1" / "silos" / "silo-2.pub").write_text(other.text)
    assert world.serve() == ("silo-2", "silo-3", "silo-4")
    for log in (world.refusals("silo-1"), caplog.text):  # the sentence leaves the silo, too
        assert "the keys that came for silo-2 are not signed by silo-2" in log


def test_silos_of_another_base_model_are_in_no_sum_even_if_the_server_hides_it(
    world: World, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(tiny_llama, world.home / "other-model")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(other)
    world.models["silo-3"] = str(other)
    monkeypatch.setattr(serve, "_shared_model", lambda experiment: "")
    monkeypatch.setattr(remote_clients.RemoteClients, "wait_for", lambda *about: False)
    with pytest.raises(UserError, match="no client's update could be used in round 1"):
        world.serve()
    for name in SILOS:
        peer = "silo-1" if name == "silo-3" else "silo-3"
        assert f"the keys that came for {peer} are not signed" in world.refusals(name)
