"""What the system refuses to read is not damaged: nothing is removed, replaced or begun anew."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hanse import atomic_files
from hanse.deployment.silo.agreement import AgreementMember
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.policy import Policy
from hanse.errors import UserError
from hanse.federation.client_memory import MemoryStore
from hanse.journal import environment
from hanse.journal.checkpoints import checkpoints, latest
from hanse.journal.records import ENVIRONMENT
from hanse.journal.run_folder import Journal, read_rounds
from hanse.learners.training.checkpoint import TrainingCheckpoint
from hanse.randomness import RoundContext
from hanse.security import kits
from hanse.security.identity import simulated
from hanse.security.signatures import Inbox
from journal.test_run_folder import commit
from unprivileged import as_nobody, give, home


@pytest.fixture
def run() -> Iterator[Path]:
    """The folder of a run of rounds 0 to 3, of a user who is not root."""
    with home() as place:
        journal = Journal.create(place / "run", "name: trial\n")
        for number in range(4):
            commit(journal, number)
        journal.close()
        give(place)
        yield place / "run"


def restored(run: Path) -> str:
    """The round with which that user would go on, or what he is told."""

    def work() -> object:
        found = Journal(run).restore()
        return found.round if found else None

    return as_nobody(work)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("what", ["newest", "all", "folder", "metrics"])
def test_a_checkpoint_that_may_not_be_read_is_kept(run: Path, what: str) -> None:
    before, files = content(run), sorted(checkpoints(run))
    refused = {
        "newest": files[-1:],
        "all": files,
        "folder": [run / "state"],
        "metrics": [run / "metrics.jsonl"],
    }[what]
    modes = {place: place.stat().st_mode for place in refused}
    for place in refused:
        place.chmod(0)
    said = restored(run)
    assert said.startswith("UserError: ")
    assert "could not be read (Permission denied); nothing was changed" in said
    for place, mode in modes.items():
        place.chmod(mode)
    assert content(run) == before
    assert restored(run) == "3"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("number", [1, 2])
def test_any_error_of_the_system_keeps_the_checkpoints(
    run: Path, monkeypatch: pytest.MonkeyPatch, code: int, number: int
) -> None:
    """Whichever read it is that fails."""
    before, calls, read = content(run), iter(range(99)), Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.suffix == ".safetensors" and next(calls) < number:
            raise OSError(code, os.strerror(code))
        return read(path)

    journal = Journal(run)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(UserError, match="could not be read"):
            journal.restore()
    journal.close()
    assert content(run) == before


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(run: Path) -> None:
    for file in checkpoints(run):
        file.unlink()
    before = content(run)
    assert "has no checkpoint that is whole, though round 3 was reached" in restored(run)
    assert content(run) == before


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(run: Path) -> None:
    for file in checkpoints(run):
        file.write_bytes(file.read_bytes()[:-1])
    before = content(run)
    assert "has no checkpoint that is whole" in restored(run)
    assert content(run) == before, "what may still be mended is kept"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run", "")
    commit(journal, 0)
    for file in checkpoints(tmp_path / "run"):
        file.unlink()  # its lines come first
    assert journal.restore() is None and read_rounds(tmp_path / "run") == []
    journal.close()


def test_an_older_checkpoint_says_what_is_done_again(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = min(checkpoints(run))
    data = old.read_bytes()
    journal = Journal(run)
    commit(journal, 4)
    for file in checkpoints(run):
        file.unlink()
    old.write_bytes(data)  # from a copy
    found = journal.restore()
    journal.close()
    assert found is not None and found.round == 2
    assert "rounds 3 to 4 have no whole checkpoint and are done again" in caplog.text


def test_a_read_only_folder_is_a_sentence_and_changes_nothing(run: Path) -> None:
    """Its last checkpoint loads, and the run goes on once it can be written."""
    before = content(run)

    def look() -> int:
        found = latest(run)
        assert found is not None
        return found.round

    def begun() -> str:
        return str(Journal.create(run.parent / "other", ""))

    def go_on() -> int:
        journal = Journal(run)
        journal.restore()
        commit(journal, 4)
        return read_rounds(run)[-1].round

    (run / ".lock").unlink()
    for place in (run, run / "state", run.parent):
        place.chmod(0o555)
    for work in (go_on, begun):
        said = as_nobody(work)
        assert said.startswith("UserError: ") and "Permission denied" in said
    assert as_nobody(look) == "3"
    (run).chmod(0o755)  # now it can be opened, and a checkpoint still cannot be written
    said = as_nobody(go_on)
    assert "could not be written (Permission denied)" in said and "make it writable" in said
    files = content(run)
    files.pop(".lock")
    before.pop(".lock")
    assert files.keys() == before.keys(), "no part under a final name"
    (run / "state").chmod(0o755)
    assert as_nobody(go_on) == "4"


def unreadable(file: Path, work: Callable[[], object]) -> str:
    """What a user is told whose file lost all its modes; it must be as it was afterwards."""
    mode, before = file.stat().st_mode, file.read_bytes()
    file.chmod(0)
    said = as_nobody(work)
    file.chmod(mode)
    assert file.read_bytes() == before
    return said


def test_a_clients_memory_is_kept(tmp_path: Path) -> None:
    with home() as place:
        store = MemoryStore(place / "a")
        for number in (1, 2, 3):
            store.draft(number, {"algorithm": {"value": torch.tensor([float(number)])}})
        give(place)
        counted = next((place / "a").glob("round-00002-*"))
        said = unreadable(counted, lambda: store.open(2))
        assert said.startswith("UserError: ") and "Permission denied" in said
        assert len(list((place / "a").iterdir())) == 3, "nothing is dropped before it was read"
        (place / "a").chmod(0)
        assert "could not be read" in as_nobody(lambda: store.draft(4, {}))


def test_a_training_checkpoint_is_kept(tmp_path: Path) -> None:
    parameters = {"w": torch.nn.Parameter(torch.zeros(2))}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    with home() as place:
        kept = TrainingCheckpoint(place / "a", 0.0)
        kept.begin(RoundContext(0, 1, "a"), "start")
        kept.save_if_due(1, parameters, optimizer, {}, {"seen": torch.zeros(1)})
        give(place)
        [file] = (place / "a").iterdir()
        said = unreadable(file, lambda: kept.restore(parameters, optimizer))
        assert said.startswith("UserError: ") and "could not be read" in said


@pytest.mark.parametrize("kind", ["asked", "stated", "seen"])
def test_what_a_silo_must_not_forget_is_not_begun_anew(kind: str) -> None:
    with home() as place:
        folder = place / "state"
        law = PolicyEnforcer("a", Policy(), "run", folder)
        file = {"seen": folder / "seen.json"}.get(kind, law.file(kind))
        atomic_files.write(file, b"{}")
        give(place)
        opened: dict[str, Callable[[], object]] = {
            "asked": lambda: PolicyEnforcer("a", Policy(), "run", folder),
            "stated": lambda: AgreementMember(simulated(0, "a", ["a"]), "run", "", 1, file),
            "seen": lambda: Inbox("a", "request", {}, file),
        }
        for hidden in (file, folder):
            mode = hidden.stat().st_mode
            hidden.chmod(0)
            assert "could not be read (Permission denied)" in as_nobody(opened[kind])
            hidden.chmod(mode)


@pytest.mark.parametrize("hidden", ["revoked", "silos"])
def test_a_part_of_a_kit_that_cannot_be_listed_is_not_empty(hidden: str) -> None:
    """Else whoever was revoked would be known again, and nobody would have to agree."""
    with home() as place:
        kit = kits.init(place / "kit", [], 30)
        for name in ("a", "b"):
            kits.enrol(kit.folder, kits.make_keys(place / name, name))
        file = kit.folder / "silos" / "a.pub"
        text = file.read_bytes()
        kits.revoke(kit.folder, "a")
        file.write_bytes(text)  # it came back
        give(place)
        assert as_nobody(lambda: [*kits.open_server(kit.folder).silos]) == "['b']"
        (kit.folder / hidden).chmod(0)
        assert "could not be read" in as_nobody(lambda: kits.open_server(kit.folder))


def test_what_a_run_noted_of_its_machine_is_not_left_out() -> None:
    with home() as place:
        environment.note(place, "one hash")
        give(place)
        said = unreadable(place / ENVIRONMENT, lambda: environment.same_data(place, "another"))
        assert said.startswith("UserError: ") and "could not be read" in said
