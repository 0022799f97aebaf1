"""Clients in this process are there while they answer, and no longer."""

import gc
import weakref
from pathlib import Path

import pytest

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Instruction, Reply, Update
from hanse.journal.run_folder import read_ledger
from hanse.simulation.in_process import InProcess
from toys import Outcome, federate, same, silos


class Watched:
    """A federation's network that notes what is under way, and which sites there are."""

    def __init__(self, clients_per_pass: int) -> None:
        self.clients_per_pass = clients_per_pass
        self.most = 0
        self.kept: set[str] = set()

    def __call__(self, inner: Transport) -> Transport:
        assert isinstance(inner, InProcess)
        watched = self

        class Watching(InProcess):
            def __init__(self) -> None:
                super().__init__(
                    inner.profiles(), inner._make, clients_per_pass=watched.clients_per_pass
                )

            def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
                watched.most = max(watched.most, len(self._queue) + len(self._replies))
                watched.kept |= self._endpoints.keys()
                return super().receive(timeout)

        return Watching()


@pytest.mark.parametrize("clients_per_pass", [1, 3, 100])
def test_requests_wait_until_there_is_room(tmp_path: Path, clients_per_pass: int) -> None:
    watched = Watched(clients_per_pass)
    found = federate(FedAvg(), silos(8), tmp_path / "watched", rounds=2, network=watched)
    assert watched.most == min(clients_per_pass, 8)
    assert same(
        found.server_state, federate(FedAvg(), silos(8), tmp_path / "all", rounds=2).server_state
    )
    asked = [row.client for row in read_ledger(tmp_path / "watched") if row.round == 1]
    assert asked == [f"c{number}" for number in range(8)]


class Remembering(FedAvg):
    """Notes something for the session, at one client."""

    def train(self, instruction: Instruction, client: Client) -> Update:
        if client.profile.name == "c1":
            client.session["seen"] = client.session.get("seen", 0) + 1
        return super().train(instruction, client)


def test_endpoints_are_kept_for_their_session_alone(tmp_path: Path) -> None:
    watched = Watched(2)
    federate(FedAvg(), silos(4), tmp_path / "without", network=watched)
    assert not watched.kept
    found = federate(Remembering(), silos(4), tmp_path / "with", network=watched)
    assert watched.kept == {"c1"}
    [endpoint] = found.run.transport._endpoints.values()
    assert isinstance(endpoint, ClientEndpoint) and endpoint.session == {"seen": 3}


def test_replies_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a client trains, the server has the sum of the replies before it, and none of them."""
    parse, updates = Reply.parse, []
    alive: list[int] = []

    def parsed(data: bytes) -> Reply:
        reply = parse(data)
        updates.extend(map(weakref.ref, reply.update.tensors.values()))
        return reply

    class Counting(InProcess):
        def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
            alive.append(sum(update() is not None for update in updates))
            return super().receive(timeout)

    def network(inner: Transport) -> Transport:
        assert isinstance(inner, InProcess)
        return Counting(inner.profiles(), inner._make)

    monkeypatch.setattr(Reply, "parse", staticmethod(parsed))
    gc.disable()  # they must be gone by themselves
    try:
        outcome: Outcome = federate(FedAvg(), silos(6), tmp_path / "run", rounds=2, network=network)
    finally:
        gc.enable()
    assert len(outcome.records) == 3 and len(updates) == 2 * 6 * 2
    assert set(alive) == {0}
