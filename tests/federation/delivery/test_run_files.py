"""Files sent once: made once, offered, read in chunks, and what a client refuses."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hanse import atomic_files
from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.federation.delivery import file_store, files
from hanse.federation.delivery.file_store import FileStore, MissingFile
from hanse.federation.delivery.files import CHUNK, HELD, OFFSET, PreparedFile, RunFiles
from hanse.federation.messages import PREPARE, Instruction, Request
from hanse.tensors.serialization import MessageError


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr(files, "CHUNK", 100)


def written(sizes: Mapping[str, int]) -> Callable[[Path], dict[str, Path]]:
    """What writes files of these sizes."""

    def make(folder: Path) -> dict[str, Path]:
        for name, size in sizes.items():
            draw = torch.Generator().manual_seed(size)
            data = torch.randint(256, (size,), generator=draw, dtype=torch.uint8)
            (folder / name).write_bytes(data.numpy().tobytes())
        return {name: folder / name for name in sizes}

    return make


def prepared(folder: Path, **sizes: int) -> RunFiles:
    return files.prepare(folder, written(sizes))


def held(store: FileStore, request: Request) -> list[int]:
    """How much of each file a client has after a request, which crosses the network as bytes."""
    numbers: list[int] = store.take(Request.parse(request.pack())).tensors[HELD].tolist()
    return numbers


def send(run: RunFiles, store: FileStore, most: int = 1000) -> int:
    """Send all that is missing, at most so many chunks; returns how many it took."""
    lengths, count = held(store, run.offer(1)), 0
    while count < most:
        missing = [i for i, file in enumerate(run.files) if lengths[i] < file.size]
        if not missing:
            break
        lengths = held(store, run.part(1, run.files[missing[0]], lengths[missing[0]]))
        count += 1
    return count


def test_files_are_made_once(tmp_path: Path) -> None:
    run = prepared(tmp_path, emulator=250, codec=30)
    assert [(f.name, f.size) for f in run.files] == [("codec", 30), ("emulator", 250)]
    manifest = json.loads((tmp_path / "files" / "files.json").read_text())
    assert manifest["emulator"]["sha256"] == run.hashes["emulator"] != run.hashes["codec"]

    def again(folder: Path) -> dict[str, Path]:
        raise AssertionError("they are there")

    assert files.prepare(tmp_path, again) == run == files.read(tmp_path)


def test_a_server_killed_while_it_makes_them_makes_them_again(tmp_path: Path) -> None:
    def killed(folder: Path) -> dict[str, Path]:
        (folder / "half").write_bytes(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.prepare(tmp_path, killed)
    assert [f.name for f in prepared(tmp_path, emulator=3).files] == ["emulator"]
    assert {f.name for f in (tmp_path / "files").iterdir()} == {"emulator", "files.json"}


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest"])
def test_a_damaged_file_of_a_run_is_not_sent(tmp_path: Path, damage: str) -> None:
    prepared(tmp_path, emulator=30)
    file = tmp_path / "files" / ("files.json" if damage == "manifest" else "emulator")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"other")
    with pytest.raises(UserError, match="missing or damaged"):
        files.read(tmp_path)


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    for made, reason in (
        ({"../emulator": outside}, "a name has up to 100"),
        ({"emulator": outside}, "is no file in"),
        ({f"{i}": outside for i in range(65)}, "65 files"),
    ):
        with pytest.raises(UserError, match=reason):
            files.prepare(tmp_path / "run", lambda folder, made=made: made)  # type: ignore[misc]
    with pytest.raises(UserError, match="is empty"):
        prepared(tmp_path / "run", emulator=0)
    assert not (tmp_path / "run" / "files").exists()


def test_a_client_gets_them_in_chunks_and_keeps_them_private(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=250, codec=30), FileStore(tmp_path / "cache")
    with pytest.raises(MissingFile) as missing:
        store.find(run.hashes)
    assert missing.value.digest == run.hashes["codec"]
    assert send(run, store) == 1 + 3
    for name, path in store.find(run.hashes).items():
        assert content_hash(path) == run.hashes[name]
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    # another client of this machine, and another run with the same file
    assert send(run, FileStore(tmp_path / "cache")) == 0
    assert send(prepared(tmp_path / "other", other=250), FileStore(tmp_path / "cache")) == 0


def test_an_interrupted_transfer_goes_on(tmp_path: Path) -> None:
    run = prepared(tmp_path, emulator=650)
    assert send(run, FileStore(tmp_path / "cache"), most=3) == 3
    assert held(FileStore(tmp_path / "cache"), run.offer(1)) == [300]
    assert send(files.read(tmp_path), FileStore(tmp_path / "cache")) == 4
    assert FileStore(tmp_path / "cache").find(run.hashes)


def test_killed_before_the_last_byte_got_its_name(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=150), FileStore(tmp_path / "cache")
    send(run, store, most=1)
    data = run.files[0].chunk(100).numpy().tobytes()
    atomic_files.append(tmp_path / "cache" / f"{run.files[0].digest}.part", data)
    assert send(run, FileStore(tmp_path / "cache")) == 0
    assert store.find(run.hashes)


def test_a_chunk_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=250), FileStore(tmp_path / "cache")
    file = run.files[0]
    for offset, length in ((0, 100), (0, 100), (100, 200), (0, 200), (200, 250), (100, 250)):
        assert held(store, run.part(1, file, offset)) == [length]
    assert content_hash(store.find(run.hashes)["emulator"]) == file.digest


def test_a_cached_file_that_was_damaged_is_missing(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=250), FileStore(tmp_path / "cache")
    send(run, store)
    store.find(run.hashes)["emulator"].write_bytes(b"0" * 250)
    with pytest.raises(MissingFile):
        store.find(run.hashes)
    assert not list((tmp_path / "cache").iterdir())
    assert send(run, store) == 3


def test_a_file_with_another_hash_is_sent_once_more(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=150), FileStore(tmp_path / "cache")
    other = replace(prepared(tmp_path / "other", emulator=151).files[0], size=150)
    wrong = RunFiles((replace(other, digest=run.files[0].digest),))
    held(store, wrong.part(1, wrong.files[0], 0))
    assert held(store, wrong.part(1, wrong.files[0], 100)) == [0]
    assert not list((tmp_path / "cache").iterdir())
    held(store, wrong.part(1, wrong.files[0], 0))
    with pytest.raises(UserError, match="not for the first time"):
        held(store, wrong.part(1, wrong.files[0], 100))
    assert not list((tmp_path / "cache").iterdir())
    assert send(run, store) == 2  # the right one


def _changed(
    request: Request, tensors: Mapping[str, Tensor] | None = None, **numbers: float
) -> Request:
    instruction = request.instruction
    tensors = instruction.tensors if tensors is None else tensors
    both = {**instruction.numbers, **{n.replace("offset", OFFSET): v for n, v in numbers.items()}}
    return replace(request, instruction=Instruction(tensors, both))


BYTES = torch.ones(100, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (lambda part: _changed(part, offset=100.0 + 1e-9), "expected a whole number"),
        (lambda part: _changed(part, {"emulator": BYTES[:9]}, offset=101), "from 101 on, and 100 "),
        (lambda part: _changed(part, offset=-1), "expected a whole number"),
        (lambda part: _changed(part, offset=0.5), "expected a whole number"),
        (lambda part: _changed(part, {"emulator": BYTES[:51]}), "up to 151, and had announced 150"),
        (lambda part: _changed(part, {"emulator": BYTES.float()}), "not 1 to 100 bytes"),
        (lambda part: _changed(part, {"emulator": BYTES.repeat(2)}), "not 1 to 100 bytes"),
        (lambda part: _changed(part, {"emulator": BYTES[:0]}), "not 1 to 100 bytes"),
        (lambda part: _changed(part, {"other": BYTES}), "no chunk of one file"),
        (lambda part: _changed(part, {"emulator": BYTES, "codec": BYTES}), "no chunk of one file"),
        (lambda part: _changed(part, {}), "no chunk of one file"),
        (lambda part: _changed(part, emulator=float("nan")), "expected a whole number"),
        (lambda part: _changed(part, emulator=2.0**60), "expected a whole number"),
        (lambda part: _changed(part, emulator=0), "emulator, which is empty"),
        (lambda part: _changed(part, codec=40), "without a size each, or sizes without"),
        (lambda part: replace(part, files={}), "without a size each, or sizes without"),
        (lambda part: replace(part, files={**part.files, "b": "0" * 64}), "without a size each"),
        (
            lambda part: _changed(
                replace(part, files={**part.files, "b": part.files["emulator"]}), b=3
            ),
            "one file with two sizes",
        ),
    ],
)
def test_a_chunk_against_the_protocol_is_refused_and_not_kept(
    tmp_path: Path, attack: Callable[[Request], Request], reason: str
) -> None:
    run, store = prepared(tmp_path, emulator=150), FileStore(tmp_path / "cache")
    send(run, store, most=1)
    [part] = (tmp_path / "cache").iterdir()
    before = part.read_bytes()
    with pytest.raises(UserError, match=reason):
        held(store, attack(run.part(1, run.files[0], 100)))
    assert [*(tmp_path / "cache").iterdir()] == [part] and part.read_bytes() == before
    assert send(run, store) == 1


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"../../etc/passwd": BYTES[:32]}, "no plain name"),
        ({"a/b": BYTES[:32]}, "no plain name"),
        ({"": BYTES[:32]}, "no plain name"),
        ({".hidden": BYTES[:32]}, "no plain name"),
        ({"emulätor": BYTES[:32]}, "no plain name"),
        ({"n" * 101: BYTES[:32]}, "no plain name"),
        ({"emulator": BYTES[:31]}, "is no SHA-256"),
        ({"emulator": BYTES[:32].float()}, "is no SHA-256"),
        ({f"f{i}": BYTES[:32] for i in range(65)}, "names 65 files"),
    ],
)
def test_names_and_hashes_are_checked_when_a_request_is_read(
    tensors: Mapping[str, Tensor], reason: str
) -> None:
    message = Request(PREPARE, 1, transform_states={"files": tensors}).pack()
    with pytest.raises(MessageError, match=reason):
        Request.parse(message)


def test_a_cached_file_of_another_size_than_offered(tmp_path: Path) -> None:
    run, store = prepared(tmp_path, emulator=150), FileStore(tmp_path / "cache")
    send(run, store)
    longer = RunFiles((replace(run.files[0], size=160),))
    with pytest.raises(UserError, match="with 160 bytes, and the file of this hash has 150"):
        held(store, longer.offer(1))


def test_a_full_disk_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, store = prepared(tmp_path, emulator=250), FileStore(tmp_path / "cache")
    send(run, store, most=1)
    monkeypatch.setattr(file_store, "RESERVE", 2**60)
    for request in (run.offer(1), run.part(1, run.files[0], 100)):
        with pytest.raises(UserError, match="need 150 bytes more, and the disk"):
            held(store, request)
    monkeypatch.setattr(file_store, "RESERVE", 0)
    assert send(run, store) == 2
    monkeypatch.setattr(file_store, "RESERVE", 2**60)
    assert held(store, run.offer(1)) == [250]  # nothing is missing


def test_files_of_other_runs_are_removed_beyond_the_bound(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "cache", most=300)
    runs = [prepared(tmp_path / str(size), emulator=size) for size in (90, 110, 130, 350)]
    for run in runs:
        send(run, store)
    sizes = sorted(file.stat().st_size for file in (tmp_path / "cache").iterdir())
    assert sizes == [110, 130, 350]  # 350 is in use
    send(runs[1], store)
    assert sorted(file.stat().st_size for file in (tmp_path / "cache").iterdir()) == [110]
    send(runs[0], FileStore(tmp_path / "cache", most=0))
    assert sorted(file.stat().st_size for file in (tmp_path / "cache").iterdir()) == [90]


def test_both_sides_need_two_chunks_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = 2**20
    monkeypatch.setattr(files, "CHUNK", chunk)
    run, store = prepared(tmp_path, emulator=64 * chunk + 1), FileStore(tmp_path / "cache")
    file, peaks = run.files[0], {"server": 0, "client": 0}
    held(store, run.offer(1))
    tracemalloc.start()
    try:
        for offset in range(0, file.size, chunk):
            tracemalloc.reset_peak()
            message = run.part(1, file, offset).pack()
            peaks["server"] = max(peaks["server"], tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
            store.take(Request.parse(message))
            peaks["client"] = max(peaks["client"], tracemalloc.get_traced_memory()[1])
            del message
    finally:
        tracemalloc.stop()
    assert store.find(run.hashes)
    for side, peak in peaks.items():
        assert chunk < peak < 2.2 * chunk, (side, peak / chunk)


def test_a_file_that_became_shorter_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with pytest.raises(UserError, match="has become shorter"):
        PreparedFile("file", "0" * 64, 6, path).chunk(0)
    assert CHUNK == 16 * 2**20
