"""Models that were sent are complete or absent, verified, and removed when they take too much."""

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo.delivered_models import DeliveredModels
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.job import JobRefusedError
from hanse.deployment.silo.model_download import ModelDownload, brings_model
from hanse.deployment.silo.policy import Policy
from hanse.errors import UserError
from hanse.federation.delivery import files
from hanse.federation.delivery.files import BEFORE_ROUNDS, PreparedFile, RunFiles
from hanse.federation.messages import Reply, Request
from hanse.learners.models.model_hash import model_hash
from hanse.learners.models.sendable_files import sendable_files


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr(files, "CHUNK", 50_000)


@pytest.fixture
def models(tmp_path: Path) -> DeliveredModels:
    return DeliveredModels(tmp_path / "state" / "models")


def download(
    models: DeliveredModels, digest: str, run: str = "run", **policy: float
) -> ModelDownload:
    state = models.folder.parent
    return ModelDownload(models, digest, PolicyEnforcer("north", Policy(**policy), run, state))  # type: ignore[arg-type]


def ask(download: ModelDownload, request: Request) -> list[int]:
    """The bytes of each file that a silo says it has."""
    reply = Reply.parse(download.reply(request.pack()))
    assert (reply.kind, reply.round, reply.client) == ("prepare", BEFORE_ROUNDS, "north")
    held: list[int] = reply.update.tensors["held"].tolist()
    return held


def complete(download: ModelDownload, offer: RunFiles, most: int = 1000) -> int:
    """Send at most so many chunks of what is missing; returns how many were."""
    held = ask(download, offer.offer(BEFORE_ROUNDS))
    for count in range(most):
        file = offer.missing(held)
        if file is None:
            return count
        place = held[offer.files.index(file)]
        held = ask(download, offer.part(BEFORE_ROUNDS, file, place))
    return most


@pytest.fixture
def offer(tiny_llama: Path) -> RunFiles:
    return RunFiles.on_disk(sendable_files(str(tiny_llama)))


def test_a_model_appears_at_once_when_its_last_chunk_has_come(
    models: DeliveredModels, offer: RunFiles, tiny_llama: Path
) -> None:
    digest = model_hash(tiny_llama)
    assert models.find(digest) is None
    first = download(models, digest)
    assert Reply.parse(first.lacking()).lacks == digest
    complete(first, offer, most=offer.chunks - 1)
    assert not first.complete and models.find(digest) is None
    second = download(models, digest)  # after a restart
    assert complete(second, offer) == 1
    assert second.complete
    place = models.find(digest)
    assert place is not None and model_hash(place) == digest
    assert [path.name for path in models.folder.iterdir()] == [digest], "no part is left"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [place, *place.iterdir()]}
    assert modes == {0o700, 0o600}
    assert complete(second, offer) == 0, "a repeated offer brings nothing"


def test_each_byte_of_a_model_that_is_sent_is_hashed_once(
    models: DeliveredModels, offer: RunFiles, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, real, read = model_hash(tiny_llama), hashlib.file_digest, []

    def counted(handle: Any, kind: str) -> Any:
        read.append(os.fstat(handle.fileno()).st_size)
        return real(handle, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    complete(download(models, digest), offer)
    place = models.find(digest)
    assert place is not None and models.find(digest) == place
    assert sorted(read) == sorted(file.size for file in offer.files)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError()))
    shutil.rmtree(place)
    complete(download(models, digest), offer)
    assert models.find(digest) == place, "copies are hashed themselves"


def test_a_damaged_model_is_removed(
    models: DeliveredModels, offer: RunFiles, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = model_hash(tiny_llama)
    for damage in (
        lambda place: (place / "config.json").unlink(),
        lambda place: (place / "tokenizer.json").write_bytes(b"{}"),
        lambda place: (place / "modeling.json").write_bytes(b"{}"),
    ):
        complete(download(models, digest), offer)
        place = models.find(digest)
        assert place is not None
        damage(place)
        assert models.find(digest) is None
        assert not place.exists() and f"{place} is damaged and was removed" in caplog.text
        caplog.clear()


def test_another_model_than_the_announced_one_is_not_used(
    models: DeliveredModels, offer: RunFiles
) -> None:
    for _ in range(2):  # and its chunks are not asked for again
        sent = download(models, "5e" * 32)
        with pytest.raises(JobRefusedError, match="what came is not a model of the hash") as error:
            complete(sent, offer)
        assert str(models.folder) not in str(error.value)
        assert models.find("5e" * 32) is None and not sent.complete
    assert sum(file.size for file in offer.files) == sum(
        file.stat().st_size for file in models.parts("5e" * 32).iterdir()
    )


def test_a_model_that_would_run_code_is_not_used(
    models: DeliveredModels, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "hostile")
    paths = sendable_files(str(folder))
    config = (folder / "config.json").read_text().replace("{", '{"auto_map": {"A": "b.py"},', 1)
    (folder / "config.json").write_text(config)
    with pytest.raises(JobRefusedError, match="or none that hanse loads"):
        complete(download(models, "5e" * 32), RunFiles.on_disk(paths))
    assert "asks to run code" in (models.folder.parent / "refusals.jsonl").read_text()


def test_offers_that_are_no_model_or_too_large_are_refused_at_once(
    models: DeliveredModels, offer: RunFiles
) -> None:
    code = PreparedFile("modeling.py", "a" * 64, 5, Path("modeling.py"))
    small = {"max_model_gb": 1e-6}
    config = next(file for file in offer.files if file.name == "config.json")
    for files_, policy, reason in (
        (RunFiles((*offer.files, code)), {}, r"it has a file 'modeling\.py', and only settings"),
        (RunFiles((config,)), {}, r"it lacks config\.json or its weights"),
        (offer, small, f"it has {offer.size:,} bytes, and its policy has max_model_gb 1e-06"),
    ):
        with pytest.raises(JobRefusedError, match=reason):
            ask(download(models, "5e" * 32, run=reason, **policy), files_.offer(BEFORE_ROUNDS))
    assert not models.folder.exists()
    begun = download(models, "5e" * 32)
    ask(begun, offer.offer(BEFORE_ROUNDS))
    for same_run in (begun, download(models, "5e" * 32)):  # after a restart, too
        with pytest.raises(JobRefusedError, match="other files were offered before in this run"):
            ask(same_run, RunFiles(offer.files[1:]).offer(BEFORE_ROUNDS))


def test_other_offers_of_further_runs_do_not_add_up_on_the_disk(
    models: DeliveredModels, tmp_path: Path
) -> None:
    size = 100_000
    bound = 2 * size + 10
    for number in range(4):
        folder = tmp_path / f"offer-{number}"
        folder.mkdir()
        (folder / "config.json").write_text(f"{number}")
        for shard in (1, 2):
            content = bytes([number, shard]) * (size // 2)
            (folder / f"model-0000{shard}-of-00002.safetensors").write_bytes(content)
        paths = {file.name: file for file in folder.iterdir()}
        sent = download(models, "5e" * 32, run=f"run{number}", max_model_gb=bound / 1e9)
        complete(sent, RunFiles.on_disk(paths), most=4)
        taken = sum(file.stat().st_size for file in models.folder.rglob("*") if file.is_file())
        assert size < taken <= bound


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_model_that_cannot_be_read_is_not_taken_for_a_damaged_one(
    models: DeliveredModels,
    offer: RunFiles,
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    digest = model_hash(tiny_llama)
    complete(download(models, digest), offer)
    for module in ("content_hash", "json_text.read"):

        def fail(file: Path) -> str:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as broken:
            broken.setattr(f"hanse.learners.models.model_hash.{module}", fail)
            with pytest.raises(UserError, match=r"could not be read .*; nothing was changed"):
                models.find(digest)
    assert models.find(digest) == models.folder / digest


def test_a_full_disk_is_not_taken_for_another_model(
    models: DeliveredModels, offer: RunFiles, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = model_hash(tiny_llama)

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("hanse.deployment.silo.delivered_models._linked", fail)
        with pytest.raises(JobRefusedError, match="model: its disk is too full") as error:
            complete(download(models, digest), offer)
    assert str(models.folder) not in str(error.value)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
        models.parts(digest).rename(models.folder / "elsewhere")
        with pytest.raises(JobRefusedError, match="model: its disk is too full"):
            complete(download(models, digest), offer)
    assert complete(download(models, digest), offer) == offer.chunks, "taken once there is room"
    assert models.find(digest)


def test_former_models_are_kept_up_to_the_bound_those_used_last_first(
    models: DeliveredModels, offer: RunFiles, tiny_llama: Path
) -> None:
    digest = model_hash(tiny_llama)
    names = ["1" * 64, "2" * 64, "3" * 64]
    for number, name in enumerate(names):
        (models.folder / name).mkdir(parents=True)
        (models.folder / name / "model.safetensors").write_bytes(bytes(300_000))
        os.utime(models.folder / name, (number, number))
    bound = 600_000
    assert offer.size < bound
    complete(download(models, digest, max_model_gb=bound / 1e9), offer)
    assert {path.name for path in models.folder.iterdir()} == {digest, *names[1:]}


def test_only_requests_of_the_round_before_the_first_bring_a_model(offer: RunFiles) -> None:
    assert brings_model(offer.offer(BEFORE_ROUNDS).pack())
    assert not brings_model(offer.offer(1).pack())
    assert not brings_model(Request("train", 0).pack())
    assert not brings_model(b"no request")


def test_chunks_out_of_order_are_refused(models: DeliveredModels, offer: RunFiles) -> None:
    begun = download(models, "5e" * 32)
    largest = max(offer.files, key=lambda file: file.size)
    with pytest.raises(UserError, match="nothing of them was kept"):
        ask(begun, offer.part(BEFORE_ROUNDS, largest, 50_000))
