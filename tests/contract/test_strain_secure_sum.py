"""Strain test: a secure sum in four phases with drop-outs, whose round pauses in every phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.compatibility.parts import check
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.learners.training.settings import TrainingSettings
from parts.secure_sum import PRIME, SecureSum
from toys import Meddler, Outcome, federate, held_out, same, silos

PHASES = ("keys", "train", "shares", "unmask", "never")
NAMES = ("c0", "c1", "c2", "c3")
# Any one client and any phase; then two pairs of them, and any two phases.
PAIRS = [("c0",), ("c1",), ("c2",), ("c3",), ("c0", "c2"), ("c1", "c3")]
PATTERNS = [
    dict(zip(pair, leaving, strict=True))
    for pair in PAIRS
    for leaving in product(PHASES[:-1], repeat=len(pair))
]


def go(folder: Path, rule: Aggregator | None, leaving: Mapping[str, str], **more: Any) -> Outcome:
    """One round (or more) in which each client falls silent in its phase of `leaving`."""

    def lost(client: str, kind: str, round: int) -> bool:
        left = PHASES.index(leaving.get(client, "never"))
        return kind in PHASES and PHASES.index(kind) >= left

    settings: dict[str, Any] = {
        "rounds": 1,
        "network": lambda inner: Meddler(inner, lost),
        "server": held_out(),
        **more,
    }
    return federate(FedAvg(), silos(4), folder, aggregator=rule, **settings)


def near(a: Outcome, b: Outcome, tolerance: float) -> bool:
    """Whether two runs' models agree."""
    left, right = a.server_state.algorithm_state["model"], b.server_state.algorithm_state["model"]
    return all(float((left[name] - right[name]).abs().max()) <= tolerance for name in right)


def test_drop_outs_in_any_phase_give_the_mean_of_the_survivors(tmp_path: Path) -> None:
    rule = SecureSum(threshold=2)
    means: dict[tuple[str, ...], Outcome] = {}
    for number, leaving in enumerate(PATTERNS):
        summed = go(tmp_path / f"sum {number}", rule, leaving)
        stay = tuple(name for name in NAMES if leaving.get(name, "unmask") == "unmask")
        if stay not in means:
            silent = {name: "train" for name in NAMES if name not in stay}
            means[stay] = go(tmp_path / "-".join(stay), None, silent)
        assert summed.records[-1].clients == tuple(stay), leaving
        # Each client's rounding is at most half a step, and its weight at least one example.
        assert near(summed, means[stay], rule.grid), leaving
        assert summed.records[-1].weight == means[stay].records[-1].weight
    assert len(means) == 7  # all four, all but one, all but a pair


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_too_few_clients_end_a_round_that_nobody_waits_for(tmp_path: Path, phase: str) -> None:
    leaving = {"c1": phase, "c2": phase}
    with pytest.raises(UserError, match="only 2 of 3 clients' updates could be used in round 1"):
        go(tmp_path / "run", SecureSum(threshold=3), leaving)
    assert len(list((tmp_path / "run" / "state").iterdir())) == 1  # round 0 alone
    assert go(tmp_path / "run", SecureSum(threshold=2), leaving).records[-1].round == 1


class Returning(Meddler):
    """A network on which silent clients come back while the round is paused."""

    pauses = 0

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        assert required == 3
        self.lost = lambda client, kind, round: False
        self.pauses += 1
        return True


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_too_few_clients_pause_the_round_in_every_phase(tmp_path: Path, phase: str) -> None:
    networks: list[Returning] = []

    def network(inner: Any) -> Returning:
        def lost(client: str, kind: str, round: int) -> bool:
            return client in ("c1", "c2") and kind == phase

        networks.append(Returning(inner, lost))
        return networks[-1]

    rule = SecureSum(threshold=3)
    paused = go(tmp_path / "paused", rule, {}, network=network, rounds=2)
    assert networks[0].pauses == 1
    assert [record.clients for record in paused.records[1:]] == [NAMES, NAMES]
    whole = go(tmp_path / "whole", rule, {}, rounds=2)
    assert same(paused.server_state, whole.server_state)


def test_numbers_are_summed(tmp_path: Path) -> None:
    plain, summed = (
        federate(FedNova(), silos(4), tmp_path / label, held_out(), aggregator=rule)
        for label, rule in (("mean", None), ("sum", SecureSum()))
    )
    assert near(summed, plain, 1e-3)
    (mean,) = {record.train["sum_a"] for record in plain.records[1:]}
    for record, known in zip(summed.records[1:], plain.records[1:], strict=True):
        loss = pytest.approx(known.train["loss"], abs=1e-4)
        assert record.train == {"sum_a": pytest.approx(mean, abs=1e-4), "loss": loss}


def test_masked_update_tells_nothing(tmp_path: Path) -> None:
    networks: dict[str, Meddler] = {}

    def inputs(label: str, rule: Aggregator | None) -> dict[str, Tensor]:
        def tapped(inner: Any) -> Meddler:
            networks[label] = Meddler(inner)
            return networks[label]

        server = held_out(features=100)
        federate(
            FedAvg(),
            silos(4, features=100),
            tmp_path / label,
            server,
            rounds=1,
            aggregator=rule,
            network=tapped,
        )
        found = {}
        for reply in map(Reply.parse, networks[label].replies):
            if reply.kind == "train":
                found[reply.client] = reply.update.tensors["weight"].double().flatten()
        return found

    plain, masked = inputs("mean", None), inputs("sum", SecureSum())
    for name in NAMES:
        pair = torch.stack([plain[name], masked[name]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.2
        assert 0.4 < float(masked[name].mean()) / PRIME < 0.6  # spread over the whole ring


def test_clients_remember_through_all_phases(tmp_path: Path) -> None:
    keep = TrainingSettings(learning_rate=0.05, optim="sgd", momentum=0.9, optimizer_state="keep")
    runs = [
        federate(
            FedAvg(), silos(4, keep), tmp_path / str(number), held_out(), rounds=3, aggregator=rule
        )
        for number, rule in enumerate((None, SecureSum()))
    ]
    assert near(runs[0], runs[1], 1e-3)
    reset = silos(4, replace(keep, optimizer_state="reset"))
    assert not near(runs[0], federate(FedAvg(), reset, tmp_path / "reset", held_out()), 1e-2)


@dataclass(frozen=True)
class Picky(FedAvg):
    """Wants to see each update."""

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        return Aggregate({}, {}, 0.0, ())


def test_an_algorithm_that_combines_by_itself_is_refused() -> None:
    check(FedAvg(), SecureSum())
    with pytest.raises(UserError, match="SecureSum sees only sums, but Picky"):
        check(Picky(), SecureSum())
