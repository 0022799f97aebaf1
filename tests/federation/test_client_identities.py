"""Client halves sign for each other with their identities, if their rule declares it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Exchange
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Instruction, Request, Update
from hanse.security.identity import Identity
from hanse.simulation.in_process import in_process
from hanse.tensors.named import Layout
from parts.signed_greetings import SignedGreetings
from samples import ROOT, Outcome
from toys import federate, same, silos

Seen = list[Identity | None]


@dataclass(frozen=True)
class Undeclared(Mean):
    """Uses identities in a phase of its own, without saying so."""

    gives: ClassVar[frozenset[str]] = Mean.gives
    seen: Seen = field(default_factory=list)

    def aggregate(self, exchange: Exchange) -> Aggregate:
        names = list(exchange.profiles)
        nothing: dict[str, Layout] = {name: {} for name in names}
        greetings = exchange.ask("greet", dict.fromkeys(names, Instruction()), nothing)
        assert len(list(greetings)) == len(names)
        return super().aggregate(exchange)

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        self.seen.append(client.identity)
        return Update()


@dataclass(frozen=True)
class Signing(Undeclared):
    """Uses identities, and declares it."""

    needs_identity: ClassVar[bool] = True


def test_a_rule_gets_identities_only_if_it_declares_that(tmp_path: Path) -> None:
    for rule in (Undeclared(), Signing()):
        federate(FedAvg(), silos(3), tmp_path / type(rule).__name__, rounds=2, aggregator=rule)
        assert len(rule.seen) == 6
        if not rule.needs_identity:
            assert rule.seen == [None] * 6
            continue
        first, again = rule.seen[:3], rule.seen[3:]
        for one, other in zip(first, again, strict=True):
            assert one is not None and other is not None
            assert one.name == other.name and set(one.peers) == {"c0", "c1", "c2"} - {one.name}
            assert one.key.private_bytes_raw() == other.key.private_bytes_raw()
            for peer in first:
                if peer is not None and peer is not one:
                    peer.peers[one.name].verify(one.key.sign(b"a"), b"a")


class Forger(Transport):
    """A network in which the greetings of some clients are replaced by that of the first."""

    def __init__(self, inner: Transport, forged: tuple[str, ...]) -> None:
        self.inner, self.forged = inner, forged

    def profiles(self) -> list[ClientProfile]:
        return self.inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        greetings = dict(request.instruction.tensors)
        if request.kind == "verify" and client in self.forged:
            greetings = dict.fromkeys(greetings, next(iter(greetings.values())))
        changed = replace(request.instruction, tensors=greetings)
        self.inner.send(client, replace(request, instruction=changed).pack())

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        return self.inner.receive(timeout)


def test_clients_verify_what_others_have_signed(tmp_path: Path) -> None:
    rule = SignedGreetings()
    plain = federate(FedAvg(), silos(3), tmp_path / "plain")
    signed = federate(FedAvg(), silos(3), tmp_path / "signed", aggregator=rule)
    assert same(signed.server_state, plain.server_state)
    with pytest.raises(UserError, match="c1 has not signed its greeting"):
        federate(
            FedAvg(),
            silos(3),
            tmp_path / "forged",
            aggregator=rule,
            network=lambda inner: Forger(inner, ("c2",)),
        )


def test_identities_are_there_in_the_check_of_a_run(
    hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    rule = f"aggregator={ROOT}/tests/parts/signed_greetings.py:SignedGreetings"
    done = hanse("check", experiment_file, rule, "rounds=1")
    assert done.code == 0, done.err


def test_simulated_clients_know_each_other(experiment_file: Path, tmp_path: Path) -> None:
    simulation = simulate(load(experiment_file))
    network = in_process(simulation, tmp_path)
    first, second = (network._make(name).identity for name in ("silo-1", "silo-2"))
    assert first is not None and second is not None
    second.peers["silo-1"].verify(first.key.sign(b"a"), b"a")
    assert set(second.peers) == {"silo-1", "silo-3"}
    # Deployed, the kit gives the identity or nothing does.
    assert simulation.endpoint(tmp_path, "silo-1").identity is None
