"""A round that was paused and is repeated: who has trained seals the same update again."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.compression.rand_k import RandK
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.transport import Transport
from hanse.federation.kept_update import KeptUpdate
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.learners.training.settings import TrainingSettings
from parts.secure_sum import SecureSum
from toys import Meddler, Outcome, federate, same, silos

KEEP = TrainingSettings(learning_rate=0.05, optim="sgd", momentum=0.9, optimizer_state="keep")


@dataclass(frozen=True)
class Counted(FedAvg):
    """FedAvg that counts how often each client trains in each round; shared by all copies."""

    trained: Counter[tuple[str, int]]

    def train(self, instruction: Instruction, client: Client) -> Update:
        self.trained[client.profile.name, client.context.round] += 1
        return super().train(instruction, client)


class Returning(Meddler):
    """A network on which c1 and c2 are silent in a phase of round 2, and come back in the pause."""

    def __init__(self, inner: Transport, phase: str) -> None:
        super().__init__(inner, lambda client, kind, round: self.away(client, kind, round))
        self.phase = phase

    def away(self, client: str, kind: str, round: int) -> bool:
        return client in ("c1", "c2") and (kind, round) == (self.phase, 2)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self.phase = "none"
        return True


def keeping(own: ClientEndpoint) -> ClientEndpoint:
    return replace(own, kept=KeptUpdate())


def go(folder: Path, phase: str, **settings: Any) -> tuple[Counter[tuple[str, int]], Outcome]:
    """Three rounds, the second of which is paused in this phase; who trained how often."""
    trained: Counter[tuple[str, int]] = Counter()
    outcome = federate(
        Counted(trained),
        silos(4, KEEP),
        folder,
        aggregator=SecureSum(threshold=3),
        network=lambda inner: Returning(inner, phase),
        **{"upload": [RandK(share=0.5)], "error_feedback": True, "endpoints": keeping, **settings},
    )
    return trained, outcome


@pytest.mark.parametrize("phase", ["keys", "train", "shares", "unmask"])
def test_a_paused_round_is_trained_once(tmp_path: Path, phase: str) -> None:
    trained, paused = go(tmp_path / "paused", phase)
    assert {*trained.values()} == {1} and len(trained) == 12
    again, _ = go(tmp_path / "again", phase, endpoints=lambda own: own)
    assert (max(again.values()) > 1) is (phase != "keys")
    _, whole = go(tmp_path / "whole", "none")
    assert same(paused.server_state, whole.server_state)
    assert [r.train for r in paused.records] == [r.train for r in whole.records]


@pytest.fixture
def endpoint(tmp_path: Path) -> ClientEndpoint:
    made: list[ClientEndpoint] = []

    def keep(own: ClientEndpoint) -> ClientEndpoint:
        made.append(keeping(own))
        return made[-1]

    go(tmp_path / "run", "none", endpoints=keep, upload=[], error_feedback=False)
    made[0].method.algorithm.trained.clear()  # type: ignore[attr-defined]
    return made[0]


def ask(value: float = 0.0, round: int = 4, counted: int = 3, note: float = 0.0) -> Request:
    model = {"weight": torch.full((3, 4), value), "bias": torch.zeros(3)}
    noted = Instruction({"c0": torch.tensor([int(note)])})
    return Request("train", round, counted, Instruction(model), aggregator_note=noted)


def test_only_the_same_request_of_the_same_round_gets_the_kept_update(
    endpoint: ClientEndpoint,
) -> None:
    trained: Counter[tuple[str, int]] = endpoint.method.algorithm.trained  # type: ignore[attr-defined]

    def trains(request: Request) -> int:
        before = trained.total()
        reply = Reply.parse(respond(endpoint, request.pack()))
        assert not reply.error and reply.update.keeps_memory
        return trained.total() - before

    requests: list[tuple[Callable[[], Request], int]] = [
        (ask, 1),
        (lambda: ask(note=1.0), 0),
        (lambda: ask(1.0), 1),
        (ask, 1),  # the draft of the first one is gone
        (lambda: ask(round=5, counted=4), 1),
        (lambda: ask(round=5, counted=4, note=1.0), 0),
    ]
    assert [trains(make()) for make, _ in requests] == [number for _, number in requests]


def test_a_training_that_failed_has_taken_the_draft_with_it(
    endpoint: ClientEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Counted, instruction: Instruction, client: Client) -> Update:
        raise UserError("it cannot train.")

    first = Reply.parse(respond(endpoint, ask().pack()))
    with monkeypatch.context() as patched:
        patched.setattr(Counted, "train", fail)
        assert Reply.parse(respond(endpoint, ask(1.0).pack())).error == "it cannot train."
    again = Reply.parse(respond(endpoint, ask().pack()))
    assert all(torch.equal(t, again.update.tensors[n]) for n, t in first.update.tensors.items())
    assert endpoint.store.look(4)
    assert endpoint.method.algorithm.trained["c0", 4] == 2  # type: ignore[attr-defined]


def test_the_update_of_a_former_round_is_not_kept(endpoint: ClientEndpoint) -> None:
    assert endpoint.kept is not None
    respond(endpoint, ask().pack())
    assert endpoint.kept != KeptUpdate()
    respond(endpoint, Request("keys", 5, 4).pack())
    assert endpoint.kept == KeptUpdate()
