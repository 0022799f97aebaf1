"""A round reveals one sum: the difference of two could be a single client's update."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Request
from hanse.journal import summed
from hanse.learners.training.settings import TrainingSettings
from hanse.tensors.named import map_tensors
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
    kind: type[Attempts] = Attempts,
) -> tuple[Outcome, Attempts]:
    networks: list[Attempts] = []

    def network(inner: Any) -> Attempts:
        networks.append(kind(inner, leaving, between))
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
    assert run.records[-1].clients == without
    opened = summed.noted(tmp_path / "run", 1)
    assert opened is not None and opened.names == without


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
            raise TooFewClientsError(len(NAMES) - 1, len(NAMES))
        return aggregate


class Gone(Attempts):
    """A network that c10 has left for good."""

    def profiles(self) -> list[ClientProfile]:
        return [profile for profile in super().profiles() if profile.name != "c10"]


def test_a_server_that_starts_again_asks_for_the_same_sum_although_another_has_left(
    tmp_path: Path,
) -> None:
    """The grid would be another one without the client of the largest weight."""
    with pytest.raises(UserError, match="could be used in round 1"):
        go(tmp_path / "run", [{**TOO_FEW, "c10": "train"}])
    run, network = go(tmp_path / "run", [{}], kind=Gone)
    assert network.unmasked() == [10]
    assert run.records[-1].clients == NAMES[:10]


KEEP = TrainingSettings(learning_rate=0.05, optim="sgd", momentum=0.9, optimizer_state="keep")


def sums_of_round_2(
    folder: Path,
    network: type[Attempts] = Attempts,
    first: Leaving = {},  # noqa: B006 (is not changed)
    between: Callable[[], Any] = lambda: None,
    rule: type[Forgetful] = Forgetful,
) -> list[Aggregate]:
    """The sums of round 2 that a server gets which asks for it twice; both end without a model.

    first: who is silent from which phase on in the first try. between: what happens before the
    second one; the server has forgotten the first sum.
    """
    own, note = rule(threshold=7), folder / summed.FILE

    def forget() -> None:
        note.unlink()
        between()

    with pytest.raises(UserError, match="could be used in round 2"):
        federate(
            FedAvg(),
            silos(11, KEEP),
            folder,
            held_out(),
            rounds=2,
            aggregator=own,
            network=lambda inner: network(inner, [first, {}], forget),
        )
    return own.sums


class Rewinding(Attempts):
    """A network on which c3 is told, when round 2 is asked again, to go back to its start."""

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if (client, request.round, request.attempt) == ("c3", 2, 1):
            assert request.last_counted_round == 1
            message = replace(request, last_counted_round=0).pack()
        super().send(client, message)


def test_the_same_sum_may_be_opened_again(tmp_path: Path) -> None:
    first, second = sums_of_round_2(tmp_path / "run")
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])


@pytest.mark.parametrize("first", [{}, {"c3": "survivors"}], ids=["asked", "left out"])
def test_no_sum_has_a_client_with_another_memory(tmp_path: Path, first: Leaving) -> None:
    """The difference of two sums would be that of one client's updates from its two memories.

    A server need not ask this client to open the first one: the shares of the others are enough.
    """
    assert len(sums_of_round_2(tmp_path / "run", Rewinding, first)) == 1


def test_no_sum_has_a_client_with_another_content_of_a_memory(tmp_path: Path) -> None:
    """A server that lets a client train round 1 once more changes what it goes on from."""
    store = MemoryStore(tmp_path / "run" / "clients" / "c3")

    def train_again() -> None:
        memory = store.look(1)
        store.draft(1, {part: map_tensors(torch.neg, own) for part, own in memory.items()})

    assert len(sums_of_round_2(tmp_path / "run", between=train_again)) == 1


class Coarser(Forgetful):
    """The rule of a server that claims a larger weight when it asks for a sum again."""

    def aggregate(self, exchange: Exchange) -> Aggregate:
        bound = exchange.weight_bound() * 2 ** len(self.sums)
        with patch.object(type(exchange), "weight_bound", lambda self: bound):
            return super().aggregate(exchange)


def test_no_sum_is_on_another_grid(tmp_path: Path) -> None:
    """Sums of the same numbers, each cut and rounded otherwise, tell the numbers one by one."""
    assert len(sums_of_round_2(tmp_path / "run", rule=Coarser)) == 1
