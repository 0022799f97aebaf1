"""A round reveals one sum: the difference of two could be a single client's update."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Request
from hanse.journal import summed
from hanse.learners.training.settings import TrainingSettings
from toys import Meddler, Outcome, federate, held_out, silos

NAMES = tuple(f"c{number}" for number in range(11))
RULE = SecAgg(threshold=7)
PHASES = ("keys", "shares", "train", "survivors", "unmask")
Leaving = Mapping[str, str]  # the phase from which on a client is silent, by client


class Attempts(Meddler):
    """A network on which other clients fall silent in each attempt of a round.

    between: called when the round is paused.
    """

    def __init__(self, inner: Any, leaving: Sequence[Leaving], between: Callable[[], Any]) -> None:
        super().__init__(inner, self._is_lost)
        self.attempts: Iterator[Leaving] = iter(leaving)
        self.leaving, self.between = next(self.attempts), between

    def _is_lost(self, client: str, kind: str, round: int) -> bool:
        left = self.leaving.get(client)
        return left is not None and kind in PHASES and PHASES.index(kind) >= PHASES.index(left)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        following = next(self.attempts, None)
        if following is not None:
            self.leaving = following
            self.between()
        return following is not None

    def unmasked(self) -> list[int]:
        """How many requests to reveal shares were sent before each pause, and after the last."""
        kinds = [Request.parse(request).kind for request in self.requests]
        begun = [i for i, kind in enumerate(kinds) if kind == "keys" and kinds[i - 1] != "keys"]
        parts = zip(begun, [*begun[1:], len(kinds)], strict=True)
        return [kinds[start:end].count("unmask") for start, end in parts]


def go(
    folder: Path,
    leaving: Sequence[Leaving],
    quorum: int = 1,
    between: Callable[[], Any] = lambda: None,
    rule: SecAgg = RULE,
) -> tuple[Outcome, Attempts]:
    networks: list[Attempts] = []

    def network(inner: Any) -> Attempts:
        networks.append(Attempts(inner, leaving, between))
        return networks[-1]

    own: dict[str, Any] = {"aggregator": rule, "network": network, "quorum": quorum}
    return federate(FedAvg(), silos(11), folder, held_out(), rounds=1, **own), networks[0]


# Six of eleven reveal nothing, so that a round with threshold 7 is paused after some have.
TOO_FEW = dict.fromkeys(NAMES[:6], "unmask")


def test_a_sum_below_the_quorum_is_not_revealed(tmp_path: Path) -> None:
    """Otherwise the server would know it, and the sum of all after the pause."""
    run, network = go(tmp_path / "run", [{"c1": "train"}, {}], quorum=11)
    assert run.records[-1].clients == NAMES
    assert network.unmasked() == [0, 11]


def test_a_repeated_round_keeps_to_the_clients_of_the_first_sum(tmp_path: Path) -> None:
    run, network = go(tmp_path / "run", [{**TOO_FEW, "c8": "train"}, {}])
    without = tuple(name for name in NAMES if name != "c8")
    assert network.unmasked() == [10, 10]
    assert run.records[-1].clients == without == summed.noted(tmp_path / "run", 1)


def test_a_repeated_round_waits_for_all_clients_of_the_first_sum(tmp_path: Path) -> None:
    run, network = go(tmp_path / "run", [TOO_FEW, {"c9": "shares"}, {}])
    assert network.unmasked() == [11, 0, 11]
    assert run.records[-1].clients == NAMES


class Greedy(SecAgg):
    """The rule of a server that asks for the sum without c8, and then for the sum with it."""

    def aggregate(self, exchange: Exchange) -> Aggregate:
        aggregate = super().aggregate(exchange)
        if "c8" not in aggregate.clients:
            raise TooFewClientsError(len(aggregate.clients), len(NAMES))
        return aggregate


def test_clients_refuse_a_second_sum_of_a_round(tmp_path: Path) -> None:
    note = tmp_path / "run" / summed.FILE
    with pytest.raises(UserError, match="c0 has helped to open a sum of round 1"):
        go(tmp_path / "run", [{"c8": "train"}, {}], between=note.unlink, rule=Greedy(threshold=7))


@dataclass(frozen=True)
class Forgetful(SecAgg):
    """The rule of a server that asks for the sum of round 2 twice, from the same clients."""

    sums: list[Aggregate] = field(default_factory=list)

    def aggregate(self, exchange: Exchange) -> Aggregate:
        aggregate = super().aggregate(exchange)
        if exchange.round == 2:
            self.sums.append(aggregate)
            raise TooFewClientsError(len(NAMES), len(NAMES) + 1)
        return aggregate


class Rewinding(Attempts):
    """A network on which c3 is told, when round 2 is asked again, to go back to its start."""

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if (client, request.round, request.attempt) == ("c3", 2, 1):
            assert request.last_counted_round == 1
            message = replace(request, last_counted_round=0).pack()
        super().send(client, message)


@pytest.mark.parametrize("network", [Attempts, Rewinding])
def test_clients_open_no_sum_of_another_memory(tmp_path: Path, network: type[Attempts]) -> None:
    """The difference of two sums would be that of one client's updates from its two memories."""
    keep = TrainingSettings(learning_rate=0.05, optim="sgd", momentum=0.9, optimizer_state="keep")
    rule, note = Forgetful(threshold=7), tmp_path / "run" / summed.FILE
    with pytest.raises(UserError, match="could be used in round 2"):
        federate(
            FedAvg(),
            silos(11, keep),
            tmp_path / "run",
            held_out(),
            rounds=2,
            aggregator=rule,
            network=lambda inner: network(inner, [{}, {}], note.unlink),
        )
    # c3 sends no second masked update: the others' shares would open the sum without its help.
    assert len(rule.sums) == (2 if network is Attempts else 1)
