"""The bytes that hanse check predicts."""

from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.federation.messages import Request
from hanse.planning.preview import estimate


def test_many_clients_are_not_asked_one_by_one(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, pack = [], Request.pack

    def counted(self: Request) -> bytes:
        packed.append(self.kind)
        return pack(self)

    monkeypatch.setattr(Request, "pack", counted)
    words = ["num_clients=40", "data.partition=iid", "data.client_test=0"]
    text = "clients: {silo-07: {train: {max_steps: 1}}}\n"
    experiment_file.write_text(experiment_file.read_text() + text)
    found = estimate.preview(load(experiment_file, words))
    assert len(found.traffic) == 40
    assert len(packed) == 4, "for each of two kinds of clients one to be answered, one to be sized"
