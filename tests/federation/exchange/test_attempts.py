"""A round that is asked again takes no reply to what was asked before, whatever its size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.journal.run_folder import read_ledger
from parts.compared_requests import ComparedRequests
from parts.secure_sum import SecureSum
from toys import Meddler, Outcome, federate, held_out, same, silos

FEATURES = 1000  # an update is much larger than any other message


class Late(Meddler):
    """A network on which c1 and c2 answer one phase of round 1 after the round was paused.

    later: the phase of the next attempt in which these replies arrive, before all others.
    """

    def __init__(self, inner: Transport, phase: str, later: str) -> None:
        super().__init__(inner)
        self.phase, self.later = phase, later
        self.held: list[tuple[str, bytes]] = []
        self.paused, self.kind = False, ""

    def begin(self, kind: str, round: int, ledger: Any) -> None:
        self.kind = kind

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if self.paused and self.kind == self.later and self.held:
            return self.held.pop(0)
        arrived = super().receive(timeout)
        while (
            arrived and not self.paused and self.kind == self.phase and arrived[0] in ("c1", "c2")
        ):
            self.held.append(arrived)
            arrived = super().receive(timeout)
        return arrived

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self.paused = True
        return True


@dataclass(frozen=True)
class Fresh(SecureSum):
    """Clients draw new keys in each attempt, which fit to no earlier ones."""

    gives: ClassVar[frozenset[str]] = SecureSum.gives

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        tries = client.session["tries"] = client.session.get("tries", 0) + (kind == "keys")
        context = replace(client.context, client=f"{client.profile.name} {tries}")
        return super().handle(kind, instruction, replace(client, context=context))


def go(folder: Path, phase: str, later: str, rule: Aggregator) -> tuple[Late, Outcome]:
    networks: list[Late] = []

    def network(inner: Transport) -> Late:
        networks.append(Late(inner, phase, later))
        return networks[-1]

    learners, server = silos(4, features=FEATURES), held_out(features=FEATURES)
    settings: dict[str, Any] = {"aggregator": rule, "rounds": 1, "network": network}
    outcome = federate(FedAvg(), learners, folder, server, **settings)
    return networks[0], outcome


@pytest.mark.parametrize("later", ["keys", "train", "shares", "unmask"])
@pytest.mark.parametrize("phase", ["keys", "train", "shares", "unmask"])
def test_a_late_reply_ends_no_wait_for_another(tmp_path: Path, phase: str, later: str) -> None:
    rule = Fresh(threshold=3)
    network, late = go(tmp_path / "late", phase, later, rule)
    assert network.paused and not network.held
    _, whole = go(tmp_path / "whole", "none", "none", rule)
    assert same(late.server_state, whole.server_state)
    assert late.records[1].clients == ("c0", "c1", "c2", "c3")
    refused = [record for record in read_ledger(tmp_path / "late") if record.late is not None]
    assert {(record.client, record.kind) for record in refused} == {("c1", phase), ("c2", phase)}


def test_a_refusal_needs_no_attempt() -> None:
    request = Request("keys", 3, attempt=2)
    assert Request.parse(request.pack()).attempt == 2
    assert len(Request("keys", 3).pack()) < len(request.pack())
    reply = Reply("c0", "keys", 3, error="no.", attempt=2)
    assert Reply.heading(reply.pack()) == Reply("", "keys", 3, error="no.", attempt=2)


def test_the_first_attempt_is_named_by_nobody(tmp_path: Path) -> None:
    network, _ = go(tmp_path / "run", "none", "none", ComparedRequests())
    messages = [*map(Request.parse, network.requests), *map(Reply.parse, network.replies)]
    assert {message.attempt for message in messages} == {0}
