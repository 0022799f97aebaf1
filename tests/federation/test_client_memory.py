"""What a client remembers: only what the server has used."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client_memory import LostMemory, MemoryStore
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import Reply
from hanse.learners.training.settings import TrainingSettings
from toys import Meddler, Outcome, federate, same, silos


def known(value: float) -> dict[str, Memory]:
    """A memory that can be told from others."""
    return {"algorithm": {"value": torch.tensor([value])}}


def value(memory: dict[str, Memory]) -> float | None:
    """The inverse of `known`; None for an empty memory."""
    return float(memory["algorithm"]["value"]) if memory else None


def test_a_draft_becomes_memory_when_its_round_is_counted(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    assert value(store.open(0)) is None
    store.draft(1, known(1.0))
    assert value(store.open(1)) == 1.0
    store.draft(4, known(4.0))  # the client was not drawn in rounds 2 and 3
    assert value(MemoryStore(tmp_path).open(4)) == 4.0  # another process sees the same


def test_a_draft_of_an_uncounted_round_is_dropped(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.draft(1, known(1.0))
    assert value(store.open(0)) is None
    assert not list(tmp_path.iterdir())
    store.draft(2, known(2.0))
    store.open(2)
    store.draft(3, known(3.0))
    assert value(store.open(2)) == 2.0
    store.draft(4, known(4.0))
    assert value(store.open(4)) == 4.0


def test_the_server_may_fall_back_by_one_round(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    for round in (1, 2, 3, 4, 5):
        store.open(round - 1)
        store.draft(round, known(float(round)))
    assert value(store.open(5)) == 5.0
    assert value(store.open(4)) == 4.0  # its checkpoint of round 5 was damaged
    store.draft(5, known(5.5))
    assert value(store.open(5)) == 5.5


def test_memory_does_not_grow_with_the_rounds(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    for round in range(1, 20):
        store.open(round - 1)
        store.draft(round, known(float(round)))
    assert len(list(tmp_path.iterdir())) <= 3  # two counted ones and a draft


def test_nothing_kept_in_a_counted_round_is_an_empty_memory(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.draft(1, known(1.0))
    store.draft(2, {"algorithm": {}})
    assert store.open(2) == {}


def test_who_remembers_nothing_has_no_file_and_is_asked_for_none(tmp_path: Path) -> None:
    assert not MemoryStore(tmp_path / "c0").draft(1, {"algorithm": {}})
    assert not (tmp_path / "c0").exists()
    outcome = federate(FedAvg(), silos(3), tmp_path / "run", rounds=3)
    assert not (tmp_path / "run" / "clients").exists()
    assert outcome.server_state.last_counted_rounds == {}


def test_who_has_nothing_left_to_remember_says_so_on_disk(tmp_path: Path) -> None:
    """The server may still ask for what there was before."""
    store = MemoryStore(tmp_path)
    assert store.draft(1, known(1.0))
    assert store.draft(2, {"algorithm": {}})
    assert store.open(2) == {}
    assert value(store.open(1)) == 1.0


def test_memory_that_is_gone_altogether_is_missed(tmp_path: Path) -> None:
    keep = TrainingSettings(learning_rate=0.05, optimizer_state="keep")
    found = federate(FedAvg(), silos(3, keep), tmp_path / "run", rounds=3, stop_after=1)
    assert found.server_state.last_counted_rounds == dict.fromkeys(("c0", "c1", "c2"), 1)
    shutil.rmtree(tmp_path / "run" / "clients")
    with pytest.raises(LostMemory, match="c0"):
        federate(FedAvg(), silos(3, keep), tmp_path / "run", rounds=3)


def test_a_damaged_memory_is_the_users_to_mend(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.draft(1, known(1.0))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (whole[:-5], flipped, b""):
        file.write_bytes(damaged)
        with pytest.raises(LostMemory, match="damaged"):
            store.open(1)
    file.unlink()
    with pytest.raises(LostMemory, match="missing"):
        store.open(1)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damage_at_any_of_a_hundred_places_is_found(tmp_path: Path, damage: str) -> None:
    store, draw = MemoryStore(tmp_path), random.Random(0)
    store.draft(1, known(1.0))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for place in draw.sample(range(len(whole)), 100):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed if damage == "flip" else whole[:place])
        with pytest.raises(LostMemory, match="is damaged"):
            store.open(1)
    assert file.exists()


def test_only_its_owner_reads_a_memory(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        MemoryStore(tmp_path / "state" / "a").draft(1, known(1.0))
    finally:
        os.umask(before)
    [file] = (tmp_path / "state" / "a").iterdir()
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_run_stops_rather_than_go_on_without_a_memory(tmp_path: Path) -> None:
    keep = TrainingSettings(learning_rate=0.05, optimizer_state="keep")
    federate(FedAvg(), silos(3, keep), tmp_path / "run", rounds=3, stop_after=1)
    for file in (tmp_path / "run" / "clients" / "c1").iterdir():
        file.unlink()
    with pytest.raises(LostMemory, match="c1"):
        federate(FedAvg(), silos(3, keep), tmp_path / "run", rounds=3)


@pytest.mark.parametrize("round", [1, 2, 3])
def test_a_lost_reply_is_as_good_as_no_request(tmp_path: Path, round: int) -> None:
    """The client has trained, and its optimizer has moved on: both must be forgotten."""
    keep = TrainingSettings(learning_rate=0.05, optim="adamw", optimizer_state="keep")

    def go(folder: str, **settings: Any) -> Outcome:
        path = tmp_path / folder
        network = lambda inner: Meddler(inner, **settings)  # noqa: E731
        return federate(FedAvg(), silos(3, keep), path, rounds=4, network=network)

    def dropped(replies: list[bytes]) -> list[bytes]:
        return [message for message in replies if not hit(Reply.parse(message))]

    def hit(reply: Reply) -> bool:
        return (reply.client, reply.kind, reply.round) == ("c1", "train", round)

    lost = go("lost reply", rearranged=dropped)
    never = go("no request", lost=lambda *request: request == ("c1", "train", round))
    assert same(lost.server_state, never.server_state)
    assert "c1" not in lost.records[round].clients
    assert not same(lost.server_state, go("all well").server_state)
