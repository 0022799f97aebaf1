"""Journals to follow, written as a run writes them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hanse.journal.checkpoints import Checkpoint
from hanse.journal.records import RoundRecord, Traffic
from hanse.journal.run_folder import Journal

EXPERIMENT = "name: tiny\nrounds: 3\ntrain:\n  learning_rate: 0.001\nalgorithm:\n  fedavg: {}\n"


def record(number: int) -> RoundRecord:
    """What a run records of a round, but for the journal's own seconds."""
    return RoundRecord(
        round=number,
        clients=("north", "south"),
        weight=12.0,
        train={"loss": 1 / (number + 1)},
        validation={"accuracy": number / 10, "loss": math.nan},
        client_test={"north": {"accuracy": 0.5}},
        bytes=Traffic(100 * number, 50),
        seconds={"training": 2.5},
        tokens_per_second=800.0,
        peak_memory=10**9,
        time=1_700_000_000.0 + 60 * number,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder before its first round."""
    Journal.create(tmp_path / "run", EXPERIMENT).close()
    return tmp_path / "run"


@pytest.fixture
def commit(folder: Path) -> Callable[[int], None]:
    """Record a round in the folder's journal."""

    def write(number: int) -> None:
        journal = Journal(folder)
        for client, loss in (("north", 0.25), ("south", 0.75)):
            journal.ledger.sent(client, "train", 10)
            journal.ledger.received(client, "train", 10, {"loss": loss + number})
        journal.commit(
            Checkpoint(number, {"algorithm.model": {"w": torch.ones(1)}}), record(number)
        )
        journal.close()

    return write
