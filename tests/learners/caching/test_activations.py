"""Tensors that are kept: they come back as they were, or not at all."""

import logging
import os
import shutil
from io import RawIOBase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanse.learners.caching import activations
from hanse.learners.caching.activations import Activations


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [0, 8000, 1e9])
def test_tensors_come_back_as_they_were(folder: Path, memory: float, dtype: torch.dtype) -> None:
    store = Activations(memory)
    wanted = {number: torch.randn(8, number + 1).to(dtype).T for number in range(20)}
    for key, tensor in wanted.items():
        store.put(key, tensor)
        store.put(key, torch.zeros(1))  # it is there already
    for key, tensor in wanted.items():
        found = store.get(key)
        assert found is not None and found.dtype == dtype
        assert torch.equal(found, tensor)
    assert store.get("other") is None
    assert folder.exists() == (memory < 1e9)
    assert not any(path.is_file() for path in folder.rglob("*")), "the file has no name"


def test_later_changes_of_a_tensor_do_not_matter() -> None:
    for memory in (0, 1e9):
        store, tensor = Activations(memory), torch.ones(2, 2)
        store.put("key", tensor)
        tensor.zero_()
        found = store.get("key")
        assert found is not None and found.sum() == 4


def _refused(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def _full(**_: Any) -> RawIOBase:
    return Path("/dev/full").open("r+b", buffering=0)


@pytest.mark.parametrize(
    ("place", "name", "refusal", "said"),
    [
        (shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9), "less than 2 GB"),
        (activations.tempfile, "TemporaryFile", _refused, "Permission denied"),
        (activations.tempfile, "TemporaryFile", _full, os.strerror(28)),
        (Path, "mkdir", _refused, "Permission denied"),
    ],
)
def test_a_folder_that_takes_nothing_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: Any,
    name: str,
    refusal: Any,
    said: str,
) -> None:
    store = Activations(memory=2000)
    store.put("held", torch.ones(8, 8))
    monkeypatch.setattr(place, name, refusal)
    with caplog.at_level(logging.WARNING):
        for key in "abc":
            store.put(key, torch.ones(32, 32))
            assert store.get(key) is None
    assert store.get("held") is not None
    assert len(caplog.messages) == 1 and said in caplog.text


def test_a_file_that_was_cut_short_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Activations(memory=0)
    files: list[Any] = []
    whole = activations.tempfile.TemporaryFile
    monkeypatch.setattr(
        activations.tempfile, "TemporaryFile", lambda **own: files.append(whole(**own)) or files[0]
    )
    store.put("key", torch.ones(32, 32))
    files[0].truncate(100)
    assert store.get("key") is None
