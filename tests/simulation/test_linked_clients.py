"""Rounds over simulated links: their seconds, late clients, and the same again after a stop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.journal.ledger import Ledger
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.simulation.link import Link
from hanse.simulation.linked_clients import LinkedClients
from hanse.tensors.serialization import Content
from parts.noised_mean import NoisedMean
from parts.secure_sum import SecureSum
from stopping import die, killed
from toys import Outcome, federate, same, silos

NAMES = [f"c{number}" for number in range(4)]
FAST = Link(up_mbps=10, down_mbps=50, latency_ms=40)
SLOW = Link(up_mbps=0.001, down_mbps=50, latency_ms=40)  # seconds for a thousand bytes
ONE_SLOW = {**dict.fromkeys(NAMES, FAST), "c2": SLOW}


def go(folder: Path, links: Mapping[str, Link], **settings: Any) -> Outcome:
    """FedAvg over four clients behind links; c0 to c3 train for 1, 2, 3 and 4 seconds."""
    training = {name: 1.0 + number for number, name in enumerate(NAMES)}

    def network(inner: Transport) -> Transport:
        return LinkedClients(inner, links, training, settings.get("seed", 0))

    return federate(FedAvg(), silos(4), folder, network=network, **settings)


class Echo(Transport):
    """Clients whose replies are what they were sent."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Content]] = []

    def profiles(self) -> list[ClientProfile]:
        return []

    def send(self, client: str, message: Content) -> None:
        self.waiting.append((client, message))

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        return self.waiting.pop(0) if self.waiting else None


def trained(folder: Path, round: int) -> dict[str, ClientRecord]:
    """The requests to train of a round, by client."""
    records = [r for r in read_ledger(folder) if r.kind == "train" and r.round == round]
    return {r.client: r for r in records if r.late is None}


def test_seconds_of_a_round_are_those_of_its_slowest_client(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", dict.fromkeys(NAMES, FAST))
    seconds = {}
    for number, (name, record) in enumerate(trained(tmp_path / "run", 2).items()):
        assert record.simulated is not None
        down, up = 0.04 + 8 * record.down / 50e6, 0.04 + 8 * record.up / 10e6
        seconds[name] = record.simulated.seconds
        assert seconds[name] == pytest.approx(down + number + 1 + up, abs=1e-12)
        assert (record.simulated.resent_down, record.simulated.resent_up) == (0, 0)
    assert outcome.records[2].simulated_seconds == {"train": max(seconds.values())}
    assert outcome.records[0].simulated_seconds == {}
    evaluated = [r.simulated for r in read_ledger(tmp_path / "run") if r.kind == "evaluate"]
    last = max(journey.seconds for journey in evaluated if journey)
    assert outcome.records[3].simulated_seconds["evaluate"] == last < 0.1
    plain = federate(FedAvg(), silos(4), tmp_path / "plain")
    assert same(outcome.server_state, plain.server_state)
    assert [r.bytes for r in outcome.records] == [r.bytes for r in plain.records]
    assert all(record.simulated_seconds == {} for record in plain.records)


def test_a_slow_client_is_late_and_the_round_goes_on(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", ONE_SLOW, deadline=5.0, quorum=3)
    for record in outcome.records[1:]:
        assert record.clients == ("c0", "c1", "c3")
        assert record.simulated_seconds["train"] == 5.0
    late = trained(tmp_path / "run", 1)["c2"]
    assert late.simulated is not None and late.simulated.seconds > 5
    assert (late.up, late.answered_at) == (0, None)
    refused = [r for r in read_ledger(tmp_path / "run") if r.late is not None]
    assert [(r.round, r.client, r.late) for r in refused if r.kind == "train"] == [
        (number, "c2", number) for number in (1, 2, 3)
    ]
    size = trained(tmp_path / "run", 1)["c0"].up
    assert all(r.unused == size for r in refused if r.kind == "train")
    without = federate(
        FedAvg(), {n: toy for n, toy in silos(4).items() if n != "c2"}, tmp_path / "without"
    )
    assert same(outcome.server_state, without.server_state)


def test_too_few_in_time_stop_the_run_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError) as stopped:
        go(tmp_path / "run", ONE_SLOW, deadline=5.0, quorum=4)
    message = str(stopped.value)
    assert "only 3 of 4 clients' updates could be used in round 1" in message
    assert "c2 did not answer in time" in message and "deployment.quorum" in message
    assert [record.round for record in read_rounds(tmp_path / "run")] == [0]


def test_more_asked_than_awaited_end_with_the_fastest(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", ONE_SLOW, fraction_train=0.5, over_selection=2.0, rounds=1)
    assert outcome.records[1].clients == ("c0", "c1")
    second = trained(tmp_path / "run", 1)["c1"].simulated
    assert second is not None
    assert outcome.records[1].simulated_seconds["train"] == second.seconds


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_has_the_same_late_clients_and_seconds(tmp_path: Path, stop: int) -> None:
    lossy = {name: Link(0.02, 0.05, 5, 0.3) for name in NAMES}
    settings: dict[str, Any] = {"deadline": 4.5, "quorum": 1}
    whole = go(tmp_path / "whole", lossy, **settings)
    go(tmp_path / "parts", lossy, **settings, stop_after=stop)
    parts = go(tmp_path / "parts", lossy, **settings)
    assert same(whole.server_state, parts.server_state)
    assert [(r.clients, r.simulated_seconds) for r in whole.records] == [
        (r.clients, r.simulated_seconds) for r in parts.records
    ]
    ledgers = [read_ledger(tmp_path / name) for name in ("whole", "parts")]
    facts = [[(r.client, r.kind, r.late, r.unused, r.simulated) for r in rows] for rows in ledgers]
    assert facts[0] == facts[1]
    assert any(r.simulated and r.simulated.resent_up for r in ledgers[0])
    assert [len(record.clients) for record in whole.records] == [0, 3, 4, 4]  # c3 was late once


def test_losses_are_drawn_by_seed_round_and_client(tmp_path: Path) -> None:
    lossy = {name: Link(up_mbps=1, loss=0.4) for name in NAMES}
    lost: dict[str, list[int]] = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        go(tmp_path / name, lossy, seed=seed)
        journeys = [r.simulated for r in read_ledger(tmp_path / name) if r.kind == "train"]
        lost[name] = [journey.resent_up for journey in journeys if journey]
    assert lost["first"] == lost["again"] != lost["other"]
    assert len(lost["first"]) == 12 and len(set(lost["first"])) > 1


def test_an_exchange_within_another_has_its_own_clock() -> None:
    """Byte by byte: 8 bits at 8 bits a second are one second, each way."""
    inner, ledger = Echo(), Ledger()
    links = dict.fromkeys("abc", Link(up_mbps=8e-6, down_mbps=8e-6))
    clients = LinkedClients(inner, links, dict.fromkeys("abc", 10.0), 0)

    def send(kind: str, client: str, message: bytes) -> None:
        ledger.sent(client, kind, len(message))
        clients.send(client, message)

    clients.begin("train", 1, ledger)
    for client, message in (("a", b"123"), ("b", b"1"), ("c", b"12")):
        send("train", client, message)
    assert clients.receive(None) == ("b", b"1") and clients.clock() == 12.0
    clients.begin("prepare", 1, ledger)
    send("prepare", "b", b"1234")
    assert clients.receive(7.0) is None and clients.clock() == 7.0
    assert clients.receive(2.0) == ("b", b"1234") and clients.clock() == 8.0
    assert clients.end() == [] and clients.clock() == 12.0
    send("train", "b", b"123456")
    assert clients.receive(3.0) == ("c", b"12") and clients.clock() == 14.0
    assert clients.receive(1.0) is None and clients.clock() == 15.0
    assert clients.receive(None) == ("a", b"123") and clients.clock() == 16.0
    assert clients.receive(None) == ("b", b"123456") and clients.clock() == 12.0 + 22.0
    send("train", "c", b"12345")
    assert clients.receive(19.9) is None
    assert clients.end() == [("c", 5)]
    assert dict(ledger.simulated) == {"train": 34.0 + 19.9, "prepare": 8.0}


def test_phases_of_an_aggregator_take_time_of_their_own(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"aggregator": SecureSum(threshold=2), "rounds": 1}
    outcome = go(tmp_path / "run", dict.fromkeys(NAMES, FAST), **settings)
    seconds = outcome.records[1].simulated_seconds
    assert seconds.keys() == {"keys", "train", "shares", "unmask"}
    assert seconds["train"] > 4 and all(0.08 < s < 0.1 for k, s in seconds.items() if k != "train")
    late = go(tmp_path / "late", ONE_SLOW, **settings, deadline=5.0, quorum=3)
    assert late.records[1].clients == ("c0", "c1", "c3")


def test_a_round_that_goes_on_from_its_noise_keeps_its_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, settings = dict.fromkeys(NAMES, FAST), {"mechanisms": [NoisedMean()], "rounds": 2}
    whole = go(tmp_path / "whole", links, **settings)
    go(tmp_path / "run", links, **settings, stop_after=1)
    monkeypatch.setattr(FedAvg, "step", die)
    assert killed(lambda: go(tmp_path / "run", links, **settings))
    monkeypatch.undo()
    resumed = go(tmp_path / "run", links, **settings)
    assert resumed.records[2].simulated_seconds == whole.records[2].simulated_seconds
