"""A silo that lacks the model and takes none of it is asked less and less often."""

import time
from collections import deque
from pathlib import Path

import pytest
import torch

from hanse.deployment.envelopes import HELLO, Envelope, Envelopes, SiloReply
from hanse.deployment.server.model_delivery import ModelDelivery
from hanse.deployment.server.replies import ReplyCollector
from hanse.deployment.server.roster import Roster
from hanse.deployment.sockets import Frame
from hanse.federation.delivery.files import BEFORE_ROUNDS, HELD, RunFiles
from hanse.federation.messages import Reply, Update
from hanse.journal.ledger import Ledger

NODE = 1


class ForgetfulSilo:
    """An engine to one silo, which lacks the model. held: the bytes that it says it has."""

    def __init__(self) -> None:
        self.held = 999  # more than there are
        self.events: deque[Frame] = deque([({"is": "nodes", "nodes": [NODE]}, b"")])

    def send(self, node: int, ticket: int, body: bytes) -> None:
        reply = SiloReply("a", "first")
        if body != HELLO:
            offered = Envelope.parse(body).request
            update = Update({HELD: torch.tensor([self.held])}) if offered else Update()
            lacks = "" if offered else "5e" * 32
            part = Reply("a", "prepare", BEFORE_ROUNDS, update, lacks=lacks)
            reply = SiloReply("a", "first", body=part.pack())
        self.events.append(({"is": "reply", "ticket": ticket}, reply.pack()))

    def event(self, seconds: float) -> Frame | None:
        return self.events.popleft() if self.events else None


def test_only_a_silo_that_keeps_bytes_of_the_model_is_asked_as_soon_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "config.json").write_bytes(bytes(100))
    files = RunFiles.on_disk({"config.json": tmp_path / "config.json"})
    engine, delivery = ForgetfulSilo(), ModelDelivery(files, Ledger())
    collector = ReplyCollector(engine, Envelopes(Envelope("r", "s")), Roster(["a"]), delivery)
    for count in (1, 2, 3):
        collector.step(0.0)
        assert collector.timers.refusals[NODE] == count
        now[0] += 100.0
    engine.held = 50
    collector.step(0.0)
    assert collector.timers.refusals[NODE] == 1, "of the silo that keeps half of it for good"
