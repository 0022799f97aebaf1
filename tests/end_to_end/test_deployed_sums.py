"""Secure sums between processes: drop-outs at any step, and what the server can see."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copy

import pytest

from hanse.deployment.server import remote_clients, timers
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_rounds
from linked_federation import LinkedFederation, linked_federation
from patience import patience
from process_memory import found_in, wait_until_stopped
from real_federation import SILOS, TRUSTING, digest, simulated
from samples import reviews, write_experiment, write_lines
from secure_sum_spies import Spies
from standing_federation import PARTS

pytestmark = pytest.mark.end_to_end

LIMIT = patience(60)  # seconds
FOUR = ("num_clients=4", "clients_per_pass=off")


class Federated:
    """Four silos that stay up and take part in one run after another; markers let them die."""

    def __init__(self, parts: LinkedFederation, spies: Spies) -> None:
        self.parts, self.spies = parts, spies
        self.rule = f"{parts.home / 'leaving.py'}:Leaving"
        parts.know_each_other(SILOS)
        for name in SILOS:
            self.join(name)

    def join(self, name: str) -> None:
        policy = {**TRUSTING, "aggregators": ["mean", "secagg", self.rule]}
        self.parts.silo(name, policy=policy)

    def mark(self, text: str, *markers: str) -> None:
        """Let silos or the server die (`kill`) or leave (`leave`) at a step of a round."""
        for marker in markers:
            (self.parts.home / marker).write_text(text)

    def serve(self, folder: Path, *words: str) -> None:
        """Start a server, for a new run or for the one in this folder."""
        self.parts.run = folder
        self.parts.server(*FOUR, *words)

    def tend(self, until: Callable[[], bool]) -> list[str]:
        """Start silos again that have been killed, until something is so; return their names."""
        killed, end = [], time.monotonic() + LIMIT
        while not until():
            assert time.monotonic() < end, self.parts.said("server")
            for name in SILOS:
                if self.parts.processes[name].code == -signal.SIGKILL:
                    killed.append(name)
                    self.join(name)
            time.sleep(0.05)
        return killed

    def code(self) -> int | None:
        """The server's exit code, once it has ended."""
        return self.parts.processes["server"].code


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Federated]:
    home = tmp_path_factory.mktemp("linked")
    rows = write_lines(home / "rows.jsonl", reviews(160))
    experiment, spies = write_experiment(home, tiny_llama, rows), Spies(home)
    copy(PARTS / "leaving.py", home)
    with linked_federation(home, experiment, rows, spies.begin) as parts:
        yield Federated(parts, spies)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that begin to ask a paused round again after a moment."""
    for module in (remote_clients, timers):
        monkeypatch.setattr(module, "RETRY_AFTER", 0.5)


@pytest.mark.usefixtures("impatient")
def test_killed_silos_and_a_killed_server_leave_the_survivors_sum_to_the_last_bit(
    federated: Federated, tmp_path: Path
) -> None:
    words = [f"aggregator={{{federated.rule}: {{}}}}", "rounds=4", "deployment.quorum=3"]
    dropped = {"silo-2.shares.1", "silo-3.train.2"}
    federated.mark("leave", *dropped)
    expected = simulated(federated.parts.experiment, tmp_path / "simulated", *FOUR, *words)
    federated.mark("kill", *dropped, "silo-4.unmask.3", "server.survivors.4")
    federated.serve(tmp_path / "run", *words)
    died = federated.tend(lambda: federated.code() is not None)
    assert sorted(died) == ["silo-2", "silo-3", "silo-4"]
    assert federated.code() == -signal.SIGKILL
    rounds = read_rounds(tmp_path / "run")
    assert [len(row.clients) for row in rounds] == [0, 3, 3, 4]  # what silo-4 had sent is counted
    # The round is asked again, and pauses where two of four are left.
    federated.mark("kill", "silo-1.shares.4", "silo-2.shares.4")
    federated.serve(tmp_path / "run", *words)
    assert sorted(federated.tend(lambda: federated.code() is not None)) == ["silo-1", "silo-2"]
    assert federated.code() == 0, federated.parts.said("server")
    assert "only 2 of 3 clients' updates could be used in round 4" in federated.parts.said("server")
    assert digest(tmp_path / "run") == expected
    for name in SILOS:
        keys = federated.spies.keys(name, 4)
        assert len({*keys}) == len(keys) >= 3, name  # new ones in each try


@pytest.mark.usefixtures("impatient")
def test_noise_of_silos_is_accounted_for_once_though_one_of_them_is_killed(
    federated: Federated, tmp_path: Path
) -> None:
    words = [f"aggregator={{{federated.rule}: {{}}}}", "rounds=2", "deployment.quorum=3"]
    words.append("privacy={distributed_gaussian: {epsilon: 8, clip: 0.1}}")
    federated.mark("kill", "silo-2.unmask.1")  # its noise is in the sum that is opened
    federated.serve(tmp_path / "run", *words)
    killed = federated.tend(lambda: federated.code() is not None)
    assert federated.code() == 0, federated.parts.said("server")
    assert killed == ["silo-2"]
    account = record_files.read(tmp_path / "run" / PRIVACY, PrivacyRecord)
    assert account is not None and account.releases == 2
    assert account.epsilon is not None and 0 < account.epsilon <= 8
    assert [len(row.clients) for row in read_rounds(tmp_path / "run")] == [0, 4, 4]


@dataclass
class Searched:
    """A server that stands still at log lines, and whose memory can then be searched.

    seed: of its run alone. Servers are forks of the test process, whose freed memory still has
        updates of runs that it has simulated, and those it has searched for; with one seed for all
        runs, their bytes would be those of this run's updates.
    """

    federated: Federated
    folder: Path
    seed: int

    def begin(self, stops: str, *words: str) -> None:
        self.federated.spies.stop_at(stops)
        self.federated.serve(self.folder, "rounds=1", f"seed={self.seed}", *words)

    def found(self, kind: str, *silos: str) -> list[str]:
        """The silos of whose update some part is in the server's memory at its next stop."""
        number = self.federated.parts.processes["server"].number
        wait_until_stopped(number, LIMIT)
        needles = {name: self.federated.spies.needles(name, kind) for name in silos}
        assert all(needles.values())
        hits = found_in(number, [needle for own in needles.values() for needle in own])
        return [name for name, own in needles.items() if hits & {*own}]

    def go_on(self) -> None:
        os.kill(self.federated.parts.processes["server"].number, signal.SIGCONT)


def test_the_servers_memory_and_files_hold_no_single_update(
    federated: Federated, tmp_path: Path
) -> None:
    mean, summed = (
        Searched(federated, tmp_path / name, seed)
        for name, seed in (("mean", 7001), ("summed", 7002))
    )
    mean.begin("answered train", "aggregator=mean")
    for name in SILOS:  # the search finds what is there
        assert mean.found("update", name) == [name]
        mean.go_on()
    federated.tend(lambda: federated.code() == 0)
    before = {needle for name in SILOS for needle in federated.spies.needles(name, "update")}
    summed.begin("silo-4 answered train|no single update was seen", "aggregator=secagg")
    for _ in ("in the middle of the round", "at its end"):
        assert summed.found("update", *SILOS) == summed.found("words", *SILOS) == []
        summed.go_on()
    federated.tend(lambda: federated.code() == 0)
    after = {needle for name in SILOS for needle in federated.spies.needles(name, "update")}
    assert not before & after  # by their seeds
    files = [file.read_bytes() for file in summed.folder.rglob("*") if file.is_file()]
    files.append(federated.parts.said("server").encode())
    for kind in ("update", "words"):
        needles = [needle for name in SILOS for needle in federated.spies.needles(name, kind)]
        assert not any(needle in content for needle in needles for content in files)


def test_the_search_finds_words_that_one_silo_has_not_masked(
    federated: Federated, tmp_path: Path
) -> None:
    bare = Searched(federated, tmp_path / "bare", 7003)
    federated.mark("bare", "silo-2.train.1")
    bare.begin("silo-2 answered train", f"aggregator={{{federated.rule}: {{}}}}")
    assert bare.found("words", *SILOS) == ["silo-2"]
    federated.parts.kill("server")
