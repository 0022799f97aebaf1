"""Clients compare the digests of their requests in a rule's own phases, before they train."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.client import ClientEndpoint
from hanse.federation.compression.rand_k import RandK
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Instruction, Request
from hanse.federation.request_digest import request_digest
from parts.compared_requests import ComparedRequests
from toys import Meddler, Outcome, federate, same, silos


def go(folder: Path, **settings: Any) -> Outcome:
    return federate(FedAvg(), silos(), folder, aggregator=ComparedRequests(), **settings)


class Rewriting(Meddler):
    """A server that sends other requests than those that its rule has compared."""

    def __init__(self, inner: Transport, change: Callable[[str, Request], Request]) -> None:
        super().__init__(inner)
        self.change = change

    def send(self, client: str, message: bytes) -> None:
        super().send(client, self.change(client, Request.parse(message)).pack())


@pytest.mark.parametrize(
    ("algorithm", "codecs"), [(FedAvg(), [RandK(share=0.5)]), (Scaffold(), ())]
)
def test_a_comparison_changes_nothing(tmp_path: Path, algorithm: Any, codecs: Any) -> None:
    runs = [
        federate(algorithm, silos(), tmp_path / label, aggregator=rule, upload=codecs)
        for label, rule in (("compared", ComparedRequests()), ("mean", None))
    ]
    assert same(runs[0].server_state, runs[1].server_state)


def test_a_client_that_is_sent_another_model_does_not_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def other(client: str, request: Request) -> Request:
        if client != "c2" or request.kind != "train":
            return request
        tensors = {name: tensor + 1 for name, tensor in request.instruction.tensors.items()}
        return replace(request, instruction=Instruction(tensors))

    outcome = go(tmp_path / "run", network=lambda inner: Rewriting(inner, other))
    assert {record.clients for record in outcome.records[1:]} == {("c0", "c1", "c3")}
    assert "c2 did not answer: c" in caplog.text and "was sent something else" in caplog.text


def test_a_client_of_another_job_is_refused_by_all(tmp_path: Path) -> None:
    def job(own: ClientEndpoint) -> ClientEndpoint:
        return replace(own, job="another" if own.profile.name == "c1" else "this one")

    with pytest.raises(UserError, match="c0: c1 was sent something else") as caught:
        go(tmp_path / "run", endpoints=job)
    assert all(f"{name}: " in str(caught.value) for name in ("c1", "c2", "c3"))


def test_a_client_trains_in_no_smaller_cohort_than_its_owner_wants(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 clients are fewer than 5"):
        go(tmp_path / "run", endpoints=lambda own: replace(own, least_cohort=5))


class Timed(Meddler):
    """A network that notes how long replies of each kind are waited for."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.waits: dict[str, list[float]] = {}

    def clock(self) -> float:
        return 0.0

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        assert timeout is not None
        self.waits.setdefault(Request.parse(self.requests[-1]).kind, []).append(timeout)
        return super().receive(timeout)


@pytest.mark.parametrize("deadline", [60.0, 2.0])
def test_a_phase_waits_no_longer_than_its_rule_says(tmp_path: Path, deadline: float) -> None:
    networks: list[Timed] = []

    def network(inner: Transport) -> Timed:
        networks.append(Timed(inner))
        return networks[-1]

    go(tmp_path / "run", network=network, deadline=deadline)
    waits = {kind: {*seconds} for kind, seconds in networks[0].waits.items()}
    assert waits["sign"] == {min(5.0, deadline)}
    assert waits["train"] == {deadline}


def test_a_digest_is_the_same_at_both_ends() -> None:
    tensors = {"w": torch.arange(6.0).view(2, 3).T, "empty": torch.empty(0)}
    states = {"upload.0": {"basis": torch.eye(2)[:, 0]}, "download.0": {}}
    request = Request("train", 3, 2, Instruction(tensors, {"steps": 4}), states, constants="a" * 64)
    assert request_digest(Request.parse(request.pack())) == request_digest(request)
    assert request_digest(replace(request, last_counted_round=0)) == request_digest(request)
    assert request_digest(replace(request, round=4)) != request_digest(request)
