"""A silo takes the files of a run up to its policy's size, and no others in the same run."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanse.content_hash import content_hash
from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.silo.agreement import sent
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.file_limits import admit_files
from hanse.deployment.silo.job import Job, JobRefusedError
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import settings_refusals
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load, outside_code
from hanse.federation.delivery import files
from hanse.federation.delivery.file_delivery import FileDelivery
from hanse.federation.delivery.files import PreparedFile, RunFiles
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Request
from hanse.federation.server import start
from hanse.journal.run_folder import Journal
from hanse.journal.yaml_text import dump
from hanse.security import trusted_code
from samples import ROOT

PART = f"{ROOT / 'tests' / 'parts' / 'owner_emulator.py'}:OwnerEmulator"
GB = 10**9
EMULATOR = PreparedFile("emulator", "a" * 64, GB, Path("emulator"))


def admit(folder: Path, offered: RunFiles, run: str = "run", **policy: float) -> None:
    admit_files(PolicyEnforcer("north", Policy(**policy), run, folder), offered.offer(1))  # type: ignore[arg-type]


def test_the_total_is_bounded(tmp_path: Path) -> None:
    admit(tmp_path / "state", RunFiles((EMULATOR,)))
    same = replace(EMULATOR, name="again")
    admit(tmp_path / "twice", RunFiles((same, EMULATOR)))  # one file of two names
    more = PreparedFile("more", "b" * 64, 1, Path("more"))
    for offer, policy, reason in (
        (
            RunFiles((EMULATOR, more)),
            {},
            "have 1,000,000,001 bytes, and its policy has max_file_gb 1",
        ),
        (
            RunFiles((more,)),
            {"max_file_gb": 0.0},
            r"have 1 bytes, and its policy has max_file_gb 0\.",
        ),
        (RunFiles(()), {}, "without a size each, or sizes without files"),
    ):
        with pytest.raises(JobRefusedError, match=reason):
            admit(tmp_path / "refused", offer, **policy)
    assert [file.name for file in (tmp_path / "refused").iterdir()] == ["refusals.jsonl"]


def test_a_run_has_one_offer_also_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        admit(tmp_path, RunFiles((EMULATOR,)))
    for other in (replace(EMULATOR, size=5), replace(EMULATOR, digest="b" * 64)):
        with pytest.raises(JobRefusedError, match="others were offered before in this run"):
            admit(tmp_path, RunFiles((other,)))
        admit(tmp_path, RunFiles((other,)), run=other.digest[:8] + str(other.size))


def test_silos_agree_on_the_files() -> None:
    request = Request("train", 1, files={"emulator": "a" * 64})
    other = replace(request, files={"emulator": "b" * 64})
    renamed = replace(request, files={"other": "a" * 64})
    without = replace(request, files={})
    assert len({sent(each, "job").digest for each in (request, other, renamed, without)}) == 4
    assert sent(Request.parse(request.pack()), "job") == sent(request, "job")


class ToWorker(Transport):
    """One silo's worker, reached by its envelopes."""

    def __init__(self, worker: SiloWorker, envelope: Envelope, profile: ClientProfile) -> None:
        self.worker, self.envelope, self.profile = worker, envelope, profile
        self._replies: list[tuple[str, bytes]] = []

    def profiles(self) -> list[ClientProfile]:
        return [self.profile]

    def send(self, client: str, message: bytes) -> None:
        reply = SiloReply.parse(self.worker.answer(replace(self.envelope, request=message).pack()))
        self._replies.append((client, reply.body))

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        return self._replies.pop() if self._replies else None


def deliver(experiment_file: Path, folder: Path, rows: Path, state: Path, **policy: Any) -> Journal:
    """Send one silo the files of a run; returns the run's journal."""
    trusted_code.grant(ROOT / "tests" / "parts" / "owner_emulator.py", lasting=False)
    server = simulate(load(experiment_file, ["clients_per_pass=off", f"algorithm={PART}"]))
    numbers: dict[str, Any] = {"count_rounding": 1, "min_examples": 1, **policy}
    allowed = Policy(data_settings=("template", "labels"), algorithms=(PART,), **numbers)
    place, data = "127.0.0.1:1", Rows(path=str(rows))
    silo = SiloSettings(name="silo-1", server=place, data=data, state=state, policy=allowed)
    settings = dump(server.experiment.resolved() | {"output_dir": None})
    code = json.dumps(outside_code(server.experiment))
    envelope = Envelope(folder.name, settings, server.dataset.digest, code=code)
    transport = ToWorker(SiloWorker(silo), envelope, server.profiles[0])
    journal = Journal.create(folder, "")
    run = server.run(journal, transport)
    start(run, run.profiles())
    FileDelivery(run, 1).deliver(["silo-1"])
    journal.close()
    return journal


def test_a_silo_keeps_the_files_over_runs(
    experiment_file: Path,
    review_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(files, "CHUNK", 300)
    state = tmp_path / "state"
    first, second = (
        deliver(experiment_file, tmp_path / name, review_file, state).ledger.records
        for name in ("first", "second")
    )
    assert [(record.kind, record.error) for record in first + second] == [("prepare", "")] * 2
    assert first[0].down > 8 * second[0].down
    [file] = (state / "files").iterdir()
    assert file.name == content_hash(file)
    assert caplog.text.count(f"SHA-256 {file.name}") == 1
    assert "answered prepare" not in caplog.text


def test_a_silo_without_room_for_files_says_so(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    journal = deliver(experiment_file, tmp_path / "run", review_file, state, max_file_gb=1e-6)
    [record] = journal.ledger.records
    assert "its policy has max_file_gb 1e-06." in record.error
    assert not (state / "files").exists()


def test_a_silo_that_takes_no_files_refuses_the_job(experiment_file: Path) -> None:
    trusted_code.grant(ROOT / "tests" / "parts" / "owner_emulator.py", lasting=False)
    for words, policy, expected in (
        ([f"algorithm={PART}"], Policy(algorithms=(PART,), max_file_gb=0), True),
        ([f"algorithm={PART}"], Policy(algorithms=(PART,)), False),
        ([], Policy(max_file_gb=0), False),
    ):
        job = Job(load(experiment_file, words), ("silo-1",), cohort=3, text="")
        reasons = "; ".join(settings_refusals(policy, job))
        assert ("send files, and by policy.max_file_gb none are taken" in reasons) == expected
