"""Runs whose clients add shares of noise: drop-outs, pauses, restarts, and what is accounted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from hanse.errors import UserError
from hanse.federation.accounting.concentrated import spent
from hanse.federation.accounting.run_account import planned
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile
from hanse.federation.noise import discrete_gaussian as sampler
from hanse.federation.noise import os_noise
from hanse.federation.privacy.client_dp import ClientDp
from hanse.federation.privacy.distributed_gaussian import DistributedGaussian
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_releases
from hanse.randomness import RoundContext
from hanse.tensors.named import norm, subtract
from toys import Meddler, Outcome, federate, held_out, same, silos

NAMES = tuple(f"c{number}" for number in range(11))
RULE = SecAgg(threshold=8)
PART = DistributedGaussian(epsilon=8.0, clip=0.5)
Lost = Callable[[str, str, int], bool]


def nobody(client: str, kind: str, round: int) -> bool:
    return False


def go(
    folder: Path,
    part: DistributedGaussian = PART,
    lost: Lost = nobody,
    rule: SecAgg = RULE,
    **more: Any,
) -> Outcome:
    own: dict[str, Any] = {"network": lambda inner: Meddler(inner, lost), "rounds": 1, **more}
    mechanism = part.beside(rule)
    return federate(
        *(FedAvg(), silos(11), folder, held_out()), aggregator=rule, mechanisms=[mechanism], **own
    )


def account(folder: Path) -> PrivacyRecord:
    record = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert record is not None
    return record


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise: what is left of each round is the mean of clipped updates."""
    monkeypatch.setattr(sampler, "_accepted", lambda count, *_: np.zeros(count, np.int64))


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Noise that follows from round and client; calling it begins the streams anew."""
    streams: dict[tuple[int, str], np.random.Generator] = {}

    def drawn(count: int, context: RoundContext) -> bytes:
        key = context.round, context.client
        fresh = np.random.default_rng(context.derive("noise"))
        return streams.setdefault(key, fresh).bytes(count)

    monkeypatch.setattr(os_noise, "random_bytes", drawn)
    return streams.clear


@pytest.mark.parametrize("phase", ["train", "unmask"])
def test_drop_outs_leave_the_mean_of_clipped_updates(
    tmp_path: Path, silent: None, phase: str
) -> None:
    pytest.importorskip("dp_accounting")  # for client_dp beside it
    gone = ("c2", "c5", "c9")

    def lost(client: str, kind: str, round: int) -> bool:
        return client in gone and kind == phase

    ours = go(tmp_path / "sum", lost=lost)
    left = [name for name in NAMES if phase == "unmask" or name not in gone]
    assert ours.records[-1].clients == tuple(left)
    plain = federate(
        *(FedAvg(), silos(11), tmp_path / "plain", held_out()),
        rounds=1,
        mechanisms=[ClientDp(epsilon=None, noise_multiplier=0.0, clip=0.5)],
        network=lambda inner: Meddler(inner, lambda c, kind, r: kind == "train" and c not in left),
    )
    models = [run.server_state.algorithm_state["model"] for run in (ours, plain)]
    before = held_out()(RoundContext(0), {}).initial()
    assert norm(subtract(models[1], before)) > 0.05
    assert norm(subtract(*models)) < 1e-5
    assert ours.records[-1].weight == len(left)


def test_the_account_of_a_run(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", rounds=3)
    record, lines = account(tmp_path / "run"), read_releases(tmp_path / "run")
    numbers = [line.mechanisms[0].numbers for line in lines]
    assert [line.round for line in lines] == [1, 2, 3]
    assert {n["shares"] for n in numbers} == {6.0}
    assert record.epsilon == spent([n["noise_multiplier"] for n in numbers], 1e-5)
    assert 7.9 < record.epsilon <= 8 == record.budget and record.releases == 3
    assert planned(outcome.run.method, outcome.run.context(1)) == record
    # Each client keeps what it has sent, and nothing of a single one is in what the run shows.
    assert all(len(read_releases(tmp_path / "run/clients" / name)) == 3 for name in NAMES)
    assert not any(name in r.train for r in outcome.records for name in ("loss", "steps"))
    assert all(not r.client_test for r in outcome.records)
    assert outcome.records[-1].train["clipped"] == 0


def test_a_round_beyond_the_budget_is_not_asked(tmp_path: Path) -> None:
    multiplier = PART.beside(RULE)._noise(RoundContext(0, rounds=2, clients=11))
    part = DistributedGaussian(epsilon=8.0, clip=0.5, noise_multiplier=multiplier)
    with pytest.raises(UserError, match=r"round 3 would bring .* above its budget of 8"):
        go(tmp_path / "run", part, rounds=4)
    assert len(read_releases(tmp_path / "run")) == 2


def test_a_stopped_run_ends_as_a_whole_one(tmp_path: Path, repeatable: Callable[[], None]) -> None:
    whole = go(tmp_path / "whole", rounds=3)
    for round in (0, 1, 2):
        folder = tmp_path / f"{round}"
        for more in ({"stop_after": round}, {}):
            repeatable()
            stopped = go(folder, rounds=3, **more)
        assert same(stopped.server_state, whole.server_state)
        assert account(folder) == account(tmp_path / "whole")


@dataclass(frozen=True)
class Forgetful(SecAgg):
    """The rule of a server that has each sum opened twice, by the same clients."""

    gives: ClassVar[frozenset[str]] = SecAgg.gives
    sums: list[Aggregate] = field(default_factory=list)

    def aggregate(self, exchange: Exchange) -> Aggregate:
        aggregate = super().aggregate(exchange)
        self.sums.append(aggregate)
        if len(self.sums) % 2:
            raise TooFewClientsError(len(NAMES) - 1, len(NAMES))
        return aggregate


class Patient(Meddler):
    """A network on which a paused round is asked again."""

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self.lost = nobody
        return True


def test_a_sum_that_is_opened_again_has_the_same_noise(tmp_path: Path) -> None:
    """The mean of two sums of the same updates with other noise would have less of it."""
    rule = Forgetful(threshold=8)
    go(tmp_path / "run", rule=rule, rounds=2, network=Patient)
    assert len(rule.sums) == 4
    for first, again in zip(rule.sums[::2], rule.sums[1::2], strict=True):
        assert norm(subtract(first.tensors, again.tensors)) == 0 < norm(first.tensors)
    assert account(tmp_path / "run").releases == 2
    assert all(len(read_releases(tmp_path / "run/clients" / name)) == 2 for name in NAMES)


def test_a_paused_round_counts_once_and_sends_the_same_updates(tmp_path: Path) -> None:
    """Its first masked updates are never opened, and they have the noise of the second ones."""

    def lost(client: str, kind: str, round: int) -> bool:
        return kind == "survivors" and round == 1 and client in NAMES[:5]

    outcome = go(tmp_path / "run", network=lambda inner: Patient(inner, lost))
    assert outcome.records[-1].clients == NAMES
    assert account(tmp_path / "run").releases == len(read_releases(tmp_path / "run")) == 1
    assert all(len(read_releases(tmp_path / "run/clients" / name)) == 1 for name in NAMES)


class Fewer(Meddler):
    """A network that knows some of the clients only."""

    def profiles(self) -> list[ClientProfile]:
        return super().profiles()[:6]


def test_clients_take_part_in_no_sum_with_less_noise_than_accounted_for(tmp_path: Path) -> None:
    """Six silos may sum four updates by themselves; noise is made for seven of eleven."""
    rule = SecAgg()
    assert (rule.plan(6).quorum, rule.plan(11).quorum) == (4, 7)
    with pytest.raises(UserError, match=r"c0 was told that 6 silos take part, .* needs 7"):
        go(tmp_path / "run", rule=rule, network=Fewer)


def test_a_round_needs_as_many_survivors_as_noise_is_made_for(tmp_path: Path) -> None:
    def lost(client: str, kind: str, round: int) -> bool:
        return client in NAMES[:4] and kind == "train"

    with pytest.raises(UserError, match="only 7 of 8 clients' updates could be used in round 1"):
        go(tmp_path / "run", lost=lost)
    assert not read_releases(tmp_path / "run")
    assert account(tmp_path / "run").releases == 1  # written before anybody is asked
