"""A file is the old one or the new one, whatever goes wrong between."""

import hashlib
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from hanse import atomic_files
from hanse.errors import UserError


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    atomic_files.write(tmp_path / "new" / "file", b"one")
    atomic_files.write(tmp_path / "new" / "file", b"two")
    assert (tmp_path / "new" / "file").read_bytes() == b"two"
    assert os.listdir(tmp_path / "new") == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    atomic_files.write(tmp_path / "file", b"old")

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match="Input/output error"):
        atomic_files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_other_exceptions_pass_and_leave_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_files.write(tmp_path / "file", b"old")

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        atomic_files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# Files may not grow past 1,000 bytes in this process: what a full disk does, without one.
FULL = """
import resource, sys
from pathlib import Path
from hanse import atomic_files as storage
from hanse.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
home = Path(sys.argv[1])
def fill():
    with storage.folder(home / "folder", replace=True) as aside:
        (aside / "part").write_bytes(b"n" * 2000)
for action in (
    lambda: storage.write(home / "file", b"n" * 2000),
    lambda: storage.append(home / "lines", b"n" * 2000),
    fill,
):
    try:
        action()
    except UserError as error:
        print(error)
"""


def test_a_full_disk_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "lines").write_bytes(b"one\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    sentences = done.stdout.splitlines()
    assert len(sentences) == 3 and not done.stderr
    for name, sentence in zip(("file", "lines", "folder"), sentences, strict=True):
        assert sentence.startswith(f"{tmp_path / name} could not be written (File too large)")
        assert "free some space" in sentence and "hanse resume" in sentence
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "lines"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "lines").read_bytes() == b"one\n"
    assert (tmp_path / "folder" / "part").read_bytes() == b"old"


def test_append_adds_at_the_end(tmp_path: Path) -> None:
    atomic_files.append(tmp_path / "lines", b"one\n")
    atomic_files.append(tmp_path / "lines", b"two\n")
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_files.folder(tmp_path / "home", replace=True) as aside:
            (aside / name).touch()
    assert os.listdir(tmp_path / "home") == ["second"]
    assert os.listdir(tmp_path) == ["home"]


def test_a_folder_leaves_nothing_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_files.folder(tmp_path / "home") as aside:
        (aside / "half").touch()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_place_that_is_no_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be written .*make it writable"):
        atomic_files.write(tmp_path / "file" / "inner", b"")
    with pytest.raises(UserError, match="could not be written"):
        atomic_files.append(tmp_path / "file" / "inner", b"")


def test_what_several_processes_make_is_made_once(tmp_path: Path) -> None:
    """Four at a time, each slow enough to meet the others."""
    with ProcessPoolExecutor(4, get_context("spawn")) as processes:
        made = list(processes.map(_make, [tmp_path / "model"] * 4))
    assert sorted(made) == [False, False, False, True]
    assert (tmp_path / "model" / "file").read_text() == "whole"
    assert not list(tmp_path.glob("*.part"))


def _make(path: Path) -> bool:
    with atomic_files.alone(path):
        if path.exists():
            return False
        with atomic_files.folder(path) as aside:
            time.sleep(0.3)
            (aside / "file").write_text("whole")
    return True


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, stdout=subprocess.PIPE
    )
    left = tmp_path / f".home.{int(gone.stdout)}.part"
    left.mkdir()
    running = tmp_path / f".home.{os.getppid()}.part"
    running.mkdir()
    other = tmp_path / f".home.of.{int(gone.stdout)}.part"  # beside a folder of another name
    other.mkdir()
    with atomic_files.folder(tmp_path / "home"):
        pass
    assert other.exists()
    assert not left.exists()
    assert running.exists()


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damage_at_any_of_a_hundred_places_of_a_hashed_file_is_found(
    tmp_path: Path, damage: str
) -> None:
    """Checkpoints, memories, tokens and vectors are kept in this way."""
    path, draw = tmp_path / "file.tokens", random.Random(0)
    whole = draw.randbytes(300)
    atomic_files.write_hashed(path, whole)
    [(name, file)] = atomic_files.hashed(tmp_path, ".tokens")
    assert name == "file" and file.name == f"file-{hashlib.sha256(whole).hexdigest()}.tokens"
    assert file.read_bytes() == whole == atomic_files.find_hashed(path)
    for place in draw.sample(range(len(whole)), 100):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed if damage == "flip" else whole[:place])
        for read in (
            lambda: atomic_files.find_hashed(path),
            lambda: atomic_files.read_hashed(file),
        ):
            with pytest.raises(atomic_files.DamagedError, match="is damaged"):
                read()
    file.unlink()
    assert atomic_files.find_hashed(path) is None is atomic_files.read_hashed(file)


def test_a_hashed_file_takes_the_place_of_earlier_ones_of_its_name(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        atomic_files.write_hashed(tmp_path / "a.tokens", content)
    atomic_files.write_hashed(tmp_path / "a-b.tokens", b"other name")
    atomic_files.write_hashed(tmp_path / "a.vectors", b"other kind")
    assert atomic_files.find_hashed(tmp_path / "a.tokens") == b"second"
    assert {name for name, _ in atomic_files.hashed(tmp_path, ".tokens")} == {"a", "a-b"}
    assert len(list(tmp_path.iterdir())) == 3


def test_files_of_older_formats_are_never_taken_for_hashed_ones(tmp_path: Path) -> None:
    """They began with their hash, and had a key for their name."""
    content, key = b"content", "0" * 64
    digest = hashlib.sha256(content).digest()
    for name in (f"{key}.tokens", f"round-00001-{key}.checkpoint"):
        (tmp_path / name).write_bytes(digest + content)
        assert atomic_files.find_hashed(tmp_path / name) is None


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077, 0o777])
def test_modes_do_not_hang_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic_files.write(tmp_path / "a" / "b" / "write", b"", private=True)
        atomic_files.append(tmp_path / "a" / "c" / "append", b"", private=True)
        atomic_files.write_hashed(tmp_path / "a" / "x.hashed", b"", private=True)
        atomic_files.write(tmp_path / "p" / "q" / "public", b"", public=True)
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    hashed = f"x-{hashlib.sha256(b'').hexdigest()}.hashed"
    private = dict.fromkeys("abc", 0o700) | dict.fromkeys(("write", "append", hashed), 0o600)
    assert found == private | {"p": 0o755, "q": 0o755, "public": 0o644}


def test_a_log_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "log").touch(0o644)
    atomic_files.append(tmp_path / "log", b"line", private=True)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_parts_in_a_folder_of_several_machines_are_left_for_a_day(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, stdout=subprocess.PIPE
    )
    old, new = (tmp_path / f".{name}.{int(gone.stdout)}.part" for name in ("old", "new"))
    for file in (old, new):
        file.touch()
    os.utime(old, times=(time.time() - atomic_files.DAY - 60,) * 2)
    atomic_files.sweep(tmp_path, age=atomic_files.DAY)
    assert new.exists() and not old.exists()
