"""What a journal has committed is there after a crash, and nothing after it is."""

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hanse import atomic_files
from hanse.errors import UserError
from hanse.journal.checkpoints import Checkpoint, checkpoints, latest
from hanse.journal.ledger import Ledger
from hanse.journal.record_files import RecordError
from hanse.journal.records import ClientRecord, Evaluation, GeneratedSample, RoundRecord, Traffic
from hanse.journal.run_folder import Journal, read_evaluation, read_ledger, read_rounds
from hanse.journal.training_costs import TrainingCosts


def checkpoint(number: int) -> Checkpoint:
    """A state in which the round's number is written."""
    groups = {"algorithm.model": {"w": torch.full((3,), number, dtype=torch.bfloat16)}}
    return Checkpoint(number, groups, {"silo-1": number, "silo/2": 0})


def commit(journal: Journal, number: int) -> None:
    """One round with one client, committed."""
    journal.ledger.sent("silo-1", "train", 100)
    journal.ledger.received("silo-1", "train", 60, {"loss": 0.5})
    with journal.ledger.time("training"):
        pass
    record = RoundRecord(round=number, bytes=Traffic(100, 60), seconds={"evaluation": 1.0})
    journal.commit(checkpoint(number), record)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of rounds 0, 1 and 2, closed."""
    journal = Journal.create(tmp_path / "run", "name: trial\n")
    for number in range(3):
        commit(journal, number)
    journal.close()
    return tmp_path / "run"


def test_what_was_committed_is_restored(run: Path) -> None:
    journal = Journal(run)
    found = journal.restore()
    assert found is not None and found.round == 2
    assert found.counted == {"silo-1": 2, "silo/2": 0}
    tensor = found.groups["algorithm.model"]["w"]
    assert tensor.dtype == torch.bfloat16 and tensor.tolist() == [2, 2, 2]
    assert [record.round for record in read_rounds(run)] == [0, 1, 2]
    assert read_rounds(run)[1].seconds.keys() == {"evaluation", "training", "journal"}
    [row] = [row for row in read_ledger(run) if row.round == 1]
    assert row.request_id == "local/1/silo-1/train"
    assert 0 < (row.sent_at or 0) <= (row.answered_at or 0)
    assert row.measured == TrainingCosts() and row.predicted is None  # no seconds were reported
    row = replace(row, request_id="", sent_at=None, answered_at=None, measured=None)
    assert row == ClientRecord(1, "silo-1", "train", 100, 60, {"loss": 0.5})
    assert (run / "experiment.yaml").read_text() == "name: trial\n"
    journal.close()


def test_a_new_run_has_nothing_to_restore(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run", "")
    assert journal.restore() is None and latest(tmp_path / "run") is None
    assert read_rounds(tmp_path / "run") == []
    journal.close()


def test_a_folder_that_exists_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"exists; choose another .* or continue"):
        Journal.create(run, "")


def test_the_last_two_states_are_kept_under_their_hash(run: Path) -> None:
    files = sorted(checkpoints(run))
    assert [file.name[:6] for file in files] == ["00001-", "00002-"]
    for file in files:
        assert file.name[6:70] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_damaged_state_gives_way_to_the_one_before(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = max(checkpoints(run))
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    assert latest(run) is not None and newest.exists()  # a look changes nothing
    journal = Journal(run)
    found = journal.restore()
    assert found is not None and found.round == 1
    assert "damaged" in caplog.text and not newest.exists()
    assert [record.round for record in read_rounds(run)] == [0, 1]
    assert [row.round for row in read_ledger(run)] == [0, 1]
    commit(journal, 2)
    assert [record.round for record in read_rounds(run)] == [0, 1, 2]
    journal.close()


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damage_at_any_of_a_hundred_places_is_found(run: Path, damage: str) -> None:
    """The one before it is used, and never what is damaged."""
    newest, draw = max(checkpoints(run)), random.Random(0)
    whole = newest.read_bytes()
    for place in draw.sample(range(len(whole)), 100):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        newest.write_bytes(changed if damage == "flip" else whole[:place])
        found = latest(run)
        assert found is not None and found.round == 1, place
        assert found.groups["algorithm.model"]["w"].tolist() == [1, 1, 1]
    journal = Journal(run)
    restored = journal.restore()
    journal.close()
    assert restored is not None and restored.round == 1 and not newest.exists()


def test_lines_of_a_round_without_its_state_are_taken_back(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(run)

    def full(path: Path, data: bytes, private: bool = False) -> None:
        raise UserError("the disk is full")

    with monkeypatch.context() as broken, pytest.raises(UserError):
        broken.setattr(atomic_files, "write", full)
        commit(journal, 3)
    assert [record.round for record in read_rounds(run)] == [0, 1, 2, 3]
    found = journal.restore()
    assert found is not None and found.round == 2
    assert [record.round for record in read_rounds(run)] == [0, 1, 2]
    assert [row.round for row in read_ledger(run)] == [0, 1, 2]
    journal.close()


@pytest.mark.parametrize("half", [b'{"round": 3, "lo', b'{"round": 3}'])
def test_a_line_that_is_not_ended_is_no_record(run: Path, half: bytes) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(half)
    assert [record.round for record in read_rounds(run)] == [0, 1, 2]
    journal = Journal(run)
    journal.restore()
    commit(journal, 3)
    assert [record.round for record in read_rounds(run)] == [0, 1, 2, 3]
    journal.close()


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"7\n", b'{"round": 3, "lo\n'])
def test_a_damaged_line_is_an_error_until_the_run_is_resumed(run: Path, line: bytes) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(RecordError, match=r"metrics\.jsonl:4 cannot be read"):
        read_rounds(run)
    journal = Journal(run)
    journal.restore()
    commit(journal, 3)
    assert [record.round for record in read_rounds(run)] == [0, 1, 2, 3]
    journal.close()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "wb")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_cannot_work_on_one_run(run: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is working on"):
            Journal(run)
        assert len(read_rounds(run)) == 3  # reading is free
        other.communicate()
    journal = Journal(run)  # the lock went with the process
    refused = subprocess.run(command, capture_output=True, input=b"")
    assert refused.returncode != 0 and b"BlockingIOError" in refused.stderr
    journal.close()


def test_a_lock_or_a_log_that_is_a_link_changes_nothing_elsewhere(
    run: Path, tmp_path: Path
) -> None:
    """In a folder from somebody else, any file may point to one of the user's."""
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "diary"
    mine.write_bytes(b"dear diary")
    for name in (".lock", "metrics.jsonl", "ledger.jsonl", "state", "clients"):
        place, aside = run / name, tmp_path / "aside"
        there = place.exists()
        if there:
            place.rename(aside)
        place.symlink_to(mine if "." in name else mine.parent)
        with pytest.raises(UserError, match=r"symbolic link"):
            Journal(run)
        with pytest.raises(UserError, match="symbolic link"):
            atomic_files.append(place, b"more")
        place.unlink()
        if there:
            aside.rename(place)
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(mine.parent / "new")
    with pytest.raises(UserError, match="symbolic link"):
        Journal(run)
    (run / ".lock").unlink()
    assert mine.read_bytes() == b"dear diary" and len(list(mine.parent.iterdir())) == 1
    Journal(run).close()


def test_a_lock_file_is_not_emptied(run: Path) -> None:
    (run / ".lock").write_bytes(b"kept")
    Journal(run).close()
    with atomic_files.alone(run / "x"):
        pass
    assert (run / ".lock").read_bytes() == b"kept"


def test_parts_that_killed_processes_left_are_removed(run: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, stdout=subprocess.PIPE
    )
    ended, running = int(gone.stdout), os.getppid()
    (run / "clients" / "a").mkdir(parents=True)
    left = [run / "state" / f".00003-x.safetensors.{ended}.part", run / f".adapter.{ended}.part"]
    left += [run / "clients" / "a" / f".round-00001.{ended}.part"]
    stays = [run / f".report.html.{running}.part", run / f".plots.{ended}.parts", run / "a.1.part"]
    left[1].mkdir()
    for file in (left[0], left[2], left[1] / "half", *stays):
        file.write_bytes(b"half")
    Journal(run).close()
    assert [file for file in left if file.exists()] == []
    assert [file for file in stays if not file.exists()] == []


def test_a_folder_that_is_none_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        Journal(tmp_path / "nowhere")


def test_scores_are_kept_item_by_item(run: Path) -> None:
    journal = Journal(run)
    sample = GeneratedSample("2 + 2?", "4", "vier")
    evaluation = Evaluation(2, {"chrf": 0.5}, (1.0, 0.0), (sample,))
    journal.keep("test-generation", evaluation)
    journal.close()
    assert read_evaluation(run, "test-generation", 2) == evaluation
    with pytest.raises(RecordError, match=r"no scores in .*test-generation-00001\.json"):
        read_evaluation(run, "test-generation", 1)


def test_the_ledger_joins_the_parts_of_one_request() -> None:
    ledger = Ledger()
    for size, error in ((10, ""), (200, ""), (200, "disk full"), (10, "")):
        ledger.sent("a", "prepare", size)
        ledger.received("a", "prepare", 1, {}, error=error)
    rows, _ = ledger.take(1)
    assert [(row.down, row.up, row.error) for row in rows] == [(410, 3, "disk full"), (10, 1, "")]


def test_the_ledger_books_a_reply_to_its_request() -> None:
    ledger = Ledger()
    ledger.sent("a", "train", 10)
    ledger.sent("b", "train", 20)
    ledger.sent("a", "evaluate", 30)
    ledger.received("a", "train", 5, {"loss": 2.0})
    ledger.received("b", "train", 1, {}, error="out of memory")
    assert ledger.traffic() == Traffic(60, 6)
    assert ledger.total("loss", "train") == 2.0 and ledger.total("loss", "evaluate") == 0.0
    rows, _ = ledger.take(4)
    assert [row.error for row in rows] == ["", "out of memory", ""]
    assert [row.round for row in rows] == [4, 4, 4]
    assert ledger.take(5) == ([], {})
