"""2,000 mutated messages and bombs: all are refused, and the aggregate is that without them."""

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hanse.deployment.envelopes import BadEnvelopeError, Envelope, SiloReply
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Reply, Request
from hanse.tensors.serialization import Content, MessageError
from hostile_messages import bombs, mutated, reply
from toys import federate, same, silos

STRANGERS = 2000
MOST_SECONDS = 5.0  # for one bomb; benchmarks/hostile.py has the true figures
MOST_MEMORY = 80 * 2**20


class Strangers(Transport):
    """Two honest clients, and many that reply with messages that they have changed."""

    remote = False
    max_in_flight = None  # a reply to another request leaves its own open

    def __init__(self, inner: Transport) -> None:
        self.inner, self.draw, self.changes = inner, random.Random(0), Counter[str]()
        self.names = [f"s{number:04d}" for number in range(STRANGERS)]
        self.messages: list[tuple[str, bytes]] = []
        self.tensors = {"weight": torch.randn(3, 4), "bias": torch.randn(3)}

    def profiles(self) -> list[ClientProfile]:
        return [*self.inner.profiles(), *(ClientProfile(name, 9) for name in self.names)]

    def send(self, client: str, message: Content) -> None:
        request = Request.parse(message)
        if client not in self.names:
            self.inner.send(client, message)
        elif request.kind == "train":
            what, changed = mutated(reply(client, self.tensors), self.draw)
            self.changes[what] += 1
            self.messages.append((client, changed))
        else:
            error = Reply(client, request.kind, request.round, error="no.")
            self.messages.append((client, error.pack()))

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        return self.messages.pop() if self.messages else self.inner.receive(timeout)


def test_mutated_messages_change_nothing(tmp_path: Path) -> None:
    networks: list[Strangers] = []

    def network(inner: Transport) -> Transport:
        networks.append(Strangers(inner))
        return networks[-1]

    without = federate(FedAvg(), silos(2), tmp_path / "without", rounds=1)
    outcome = federate(FedAvg(), silos(2), tmp_path / "with", rounds=1, network=network)
    assert outcome.records[-1].clients == ("c0", "c1")
    assert same(outcome.server_state, without.server_state)
    changes = networks[0].changes
    assert changes.total() == STRANGERS and min(changes.values()) > 50 and len(changes) == 12


READERS: dict[str, Callable[[bytes], object]] = {
    "reply": Reply.parse,
    "request": Request.parse,
    "envelope": Envelope.parse,
    "silo's reply": SiloReply.parse,
}


@pytest.mark.parametrize("reader", READERS)
def test_bombs_are_refused_before_they_take_memory(reader: str) -> None:
    harmless = "tiny tensors within the count"  # of a reply: the layout that is due refuses it
    for what, message in bombs().items():
        tracemalloc.start()
        start = time.perf_counter()
        try:
            READERS[reader](message)
        except (MessageError, BadEnvelopeError):
            pass
        else:
            assert (what, reader) == (harmless, "reply")
        seconds, (_, most) = time.perf_counter() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < MOST_SECONDS, what
        assert most < MOST_MEMORY, f"{what}: {most:,}"
