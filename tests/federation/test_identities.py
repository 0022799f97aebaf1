"""Client halves sign for each other with their identities, if their rule declares it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Exchange
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Instruction, Update
from hanse.security.identity import Identity
from hanse.simulation.in_process import in_process
from hanse.tensors.named import Layout
from toys import federate, silos

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


def test_simulated_clients_know_each_other(experiment_file: Path, tmp_path: Path) -> None:
    simulation = simulate(load(experiment_file))
    network = in_process(simulation, tmp_path)
    first, second = (network._make(name).identity for name in ("silo-1", "silo-2"))
    assert first is not None and second is not None
    second.peers["silo-1"].verify(first.key.sign(b"a"), b"a")
    assert set(second.peers) == {"silo-1", "silo-3"}
    # Deployed, the kit gives the identity or nothing does.
    assert simulation.endpoint(tmp_path, "silo-1").identity is None
