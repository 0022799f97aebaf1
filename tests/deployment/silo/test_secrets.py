"""Keys, rows and the environment: none of them in what a silo or a server says or hands on."""

import base64
import json
import logging
import shutil
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.envelopes import HELLO, Envelope
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.messages import Instruction, Request
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import hash_of
from hanse.observability.metrics_endpoint import Status, shown
from hanse.security import kits, members
from hanse.security.signatures import Outbox
from real_federation import free_port
from samples import reviews, write_lines

ROW, ENVIRONMENT = "Ada-has-the-rare-disease-7341", "token-in-the-environment-9917"


def spoken(secret: bytes) -> set[bytes]:
    """A secret as it may be written: as it is, in base64, as hex, and in JSON."""
    return {
        secret,
        base64.b64encode(secret).rstrip(b"="),
        secret.hex().encode(),
        json.dumps(secret.decode("latin-1"))[1:-1].encode(),
    }


def private(kit: Path) -> list[bytes]:
    """The lines of the private keys in a kit."""
    files = [file for file in kit.iterdir() if file.suffix in (".key", ".ssh")]
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    return [line for line in lines if len(line) > 20 and not line.startswith(b"-----")]


@pytest.fixture
def world(tmp_path: Path, experiment_file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A server and a silo with kits, whose rows, keys and environment hold secrets."""
    monkeypatch.setenv("HANSE_SECRET", ENVIRONMENT)
    rows = [{**row, "text": f"{row['text']} {ROW}"} for row in reviews(160)]
    file = write_lines(tmp_path / "secret.jsonl", rows)
    told = load(experiment_file, ["clients_per_pass=off", f"data.path={file}"])
    hub, own = tmp_path / "hub", tmp_path / "own"
    kits.init(hub, [], 30)
    kits.enrol(hub, kits.make_keys(own, "silo-1"))
    for name in ("ca.crt", "server.pub"):
        shutil.copy(hub / name, own / name)
    policy = Policy(data_settings=("template", "labels"), min_examples=1)
    silo = SiloSettings(
        name="silo-1",
        server="127.0.0.1:1",
        data=Rows(path=str(file)),
        state=tmp_path / "state",
        policy=policy,
    )
    server = simulate(told)
    values = server.experiment.resolved() | {"output_dir": None}
    model = hash_of(told.model.model_name_or_path) or ""
    return {
        "hub": hub,
        "own": own,
        "silo": silo,
        "order": Instruction(server.learner.initial()),
        "envelope": Envelope("a1", dump(values), server.dataset.digest, model),
        "outbox": Outbox("server", kits.open_server(hub).signing),
        "late": Outbox("server", kits.open_server(hub).signing, lambda: time.time() - 999),
    }


def _asked(world: dict[str, Any], request: Request, **changed: str) -> bytes:
    envelope = replace(world["envelope"], request=request.pack(), **changed)
    signed: bytes = world["outbox"].request(envelope.pack(), "a1", request.round, "silo-1")[0]
    return signed


def test_no_secret_leaves(
    world: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good answers, refusals of every kind, a failure whose text quotes a row, metrics, bundles."""
    caplog.set_level(logging.DEBUG)
    resident = SiloWorker(world["silo"], kits.open_silo(world["own"], "silo-1"))
    train, score = (Request(kind, 1, 0, world["order"]) for kind in ("train", "evaluate"))
    said = [resident.answer(HELLO), resident.answer(_asked(world, train))]
    said.append(resident.answer(_asked(world, score)))
    assert all(len(answer) > 100 for answer in said[1:]) and resident.requests["round"] == 2
    logged = caplog.text.encode()
    for change in ({"settings": "rounds: ["}, {"model": "5e" * 32}, {"rows": "5e" * 32}):
        said.append(resident.answer(_asked(world, train, **change)))
    said.append(resident.answer(world["late"].request(b"x", "a1", 1, "silo-1")[0]))
    said.append(resident.answer(b"noise"))

    def broken(*_: object) -> bytes:
        raise UserError(
            f"the row {ROW} cannot be used, {(world['own'] / 'silo-1.key').read_text()}"
        )

    for error in (broken, lambda *_: 1 / 0):
        monkeypatch.setattr("hanse.deployment.silo.worker.respond", error)
        said.append(resident.answer(_asked(world, replace(train, last_counted_round=1))))
    world["members"] = members.written(kits.open_server(world["hub"])).encode()
    handed_on = [
        *said,
        _metrics(resident),
        world["members"],
        (world["own"] / "silo-1.pub").read_bytes(),
    ]
    secrets = [*private(world["own"]), *private(world["hub"]), ENVIRONMENT.encode()]
    assert len(secrets) > 10
    for secret in (*secrets, ROW.encode()):
        for form in spoken(secret):
            assert [text for text in (*handed_on, logged) if form in text] == []
    for secret in secrets[:-1]:  # of the keys, what the error has quoted; of all others nothing
        quoted = secret in (world["own"] / "silo-1.key").read_bytes()
        assert quoted or secret not in caplog.text.encode()


def test_a_silos_identity_is_its_kits_and_is_not_shown(
    world: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kit = kits.open_silo(world["own"], "silo-1")
    resident = SiloWorker(world["silo"], kit)
    answer = resident.answer(_asked(world, Request("train", 1, 0, world["order"])))
    assert resident._active is not None
    identity = resident._active.endpoint.identity
    assert identity is not None and identity.key is kit.signing
    releases = resident._active.endpoint.releases  # the log is the silo's, the contents the run's
    state = world["silo"].state
    assert (releases.shared, releases.run, releases.private) == (state, "a1", True)
    assert releases.folder == state / "runs" / "a1" / "silo-1"
    shown_texts = f"{resident._active!r} {vars(resident._active.endpoint)!r} {caplog.text}".encode()
    for form in spoken(kit.signing.private_bytes_raw()):
        assert form not in shown_texts and form not in answer


def _metrics(resident: SiloWorker) -> bytes:
    """All that /healthz and /metrics say."""
    port = free_port()
    status = Status(resident.about(), True, [*resident.figures()])
    found = b""
    with shown(port, lambda: status):
        for path in ("healthz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                found += answer.read()
    return found


def test_private_keys_are_their_owners_alone(world: dict[str, Any]) -> None:
    files = [f for kit in ("hub", "own") for f in world[kit].iterdir()]
    keys = [file for file in files if file.suffix in (".key", ".ssh")]
    assert len(keys) == 5 and {file.stat().st_mode & 0o777 for file in keys} == {0o600}
    public = [file for file in files if file.is_file() and file not in keys]
    assert not any(line in file.read_bytes() for file in public for line in private(world["own"]))


def test_the_probe_finds_a_row_that_may_leave(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `share_error_texts: true` texts of errors may go: what is searched above is found."""

    def broken(*_: object) -> bytes:
        raise UserError(f"the row {ROW} cannot be used")

    policy = world["silo"].policy.model_copy(update={"share_error_texts": True})
    silo = world["silo"].model_copy(update={"policy": policy})
    resident = SiloWorker(silo, kits.open_silo(world["own"], "silo-1"))
    monkeypatch.setattr("hanse.deployment.silo.worker.respond", broken)
    answer = resident.answer(_asked(world, Request("train", 1, 0, world["order"])))
    assert any(form in answer for form in spoken(ROW.encode()))
