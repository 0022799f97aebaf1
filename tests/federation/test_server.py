"""The loop: what the network and the disk do to it must not change what it comes to."""

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.evaluation.perplexity import Perplexity
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client_sampling import sample
from hanse.federation.exchange.round import open_round
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, Memory, Scores, State
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request
from hanse.journal.checkpoints import checkpoints
from hanse.journal.records import Traffic
from hanse.journal.run_folder import read_evaluation, read_ledger, read_rounds
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from toy_learners import Toy, ToyLearner
from toys import Meddler, Outcome, federate, same, silos, with_tensors

KEEP = TrainingSettings(learning_rate=0.05, per_device_train_batch_size=4, optimizer_state="keep")


def go(folder: Path, **settings: Any) -> Outcome:
    """FedAvg over four clients whose optimizers remember."""
    return federate(FedAvg(), silos(4, KEEP), folder, **settings)


# ---- the network


@pytest.mark.parametrize("seed", range(3))
def test_order_of_arrival_does_not_matter(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    instructions: list[tuple[str, ...]] = []

    def shuffled(replies: list[bytes]) -> list[bytes]:
        draw.shuffle(replies)
        instructions.append(tuple(Reply.parse(message).client for message in replies))
        return replies

    mixed = go(tmp_path / "mixed", network=lambda inner: Meddler(inner, rearranged=shuffled))
    assert same(mixed.server_state, go(tmp_path / "plain").server_state)
    assert any(instruction != tuple(sorted(instruction)) for instruction in instructions)
    assert all(list(record.clients) == sorted(record.clients) for record in mixed.records[1:])


def test_replies_that_nobody_asked_for_are_ignored(tmp_path: Path) -> None:
    old: list[bytes] = []

    def poisoned(reply: Reply, **changes: Any) -> bytes:
        tensors = {name: t + 100 for name, t in reply.update.tensors.items()}
        return replace(with_tensors(reply, tensors), **changes).pack()

    def repeated(replies: list[bytes]) -> Iterable[bytes]:
        yield from (b"", b"no message at all" * 3)
        yield from map(poisoned, map(Reply.parse, old))  # stale: rounds that are over
        for message in replies:
            reply = Reply.parse(message)
            yield poisoned(reply, client="a stranger")
            yield poisoned(reply, kind="another")
            yield poisoned(reply, round=reply.round + 1)
            yield message
            yield poisoned(reply)  # a second answer: the first one counts
        old.extend(replies)

    noisy = go(tmp_path / "noisy", network=lambda inner: Meddler(inner, rearranged=repeated))
    plain = go(tmp_path / "plain")
    assert same(noisy.server_state, plain.server_state)
    assert [r.bytes for r in noisy.records] == [r.bytes for r in plain.records]


@dataclass(frozen=True)
class Broken(Toy):
    """A client whose machine cannot make a learner after the first round."""

    def __call__(self, context: RoundContext, kept: Memory) -> ToyLearner:
        if context.round > 1:
            raise UserError(f"{context.client} has no memory left.")
        return super().__call__(context, kept)


def test_a_client_that_fails_is_left_out(tmp_path: Path) -> None:
    learners = silos(4, KEEP)
    learners["c2"] = Broken(learners["c2"].splits, KEEP)

    def silent(client: str, kind: str, round: int) -> bool:
        return client == "c2" and round > 1

    failed = federate(FedAvg(), learners, tmp_path / "failed")
    without = go(tmp_path / "without", network=lambda inner: Meddler(inner, silent))
    assert same(failed.server_state, without.server_state)
    assert [r.weight for r in failed.records] == [None, 8 + 12 + 16 + 20, 40, 40]
    assert failed.records[2].clients == ("c0", "c1", "c3")
    errors = [r.error for r in read_ledger(tmp_path / "failed") if r.error]
    assert errors[0] == "c2 has no memory left."


def test_a_round_without_updates_stops_with_the_reasons(tmp_path: Path) -> None:
    learners = {name: Broken(toy.splits, KEEP) for name, toy in silos(2, KEEP).items()}
    with pytest.raises(UserError) as stopped:
        federate(FedAvg(), learners, tmp_path / "run")
    assert "round 2" in str(stopped.value)
    assert all(f"{name}: {name} has no memory left." in str(stopped.value) for name in learners)
    assert [r.round for r in read_rounds(tmp_path / "run")] == [0, 1]
    # Once the machines are mended, the run goes on as if nothing had been.
    mended = federate(FedAvg(), silos(2, KEEP), tmp_path / "run")
    assert same(
        mended.server_state, federate(FedAvg(), silos(2, KEEP), tmp_path / "new").server_state
    )


# ---- who takes part


def test_sample_is_seeded_and_of_the_right_size() -> None:
    profiles = {f"c{i}": ClientProfile(f"c{i}", 1) for i in range(20)}
    for fraction, size in ((0.0, 1), (0.1, 2), (0.5, 10), (1.0, 20)):
        assert len(sample(profiles, fraction, RoundContext(0, 1))) == size
    drawn = [
        tuple(sample(profiles, 0.3, RoundContext(seed, r))) for seed in (0, 1) for r in (1, 2, 3)
    ]
    assert len(set(drawn)) == 6
    assert drawn[0] == tuple(sample(profiles, 0.3, RoundContext(0, 1)))
    assert all(list(names) == sorted(names, key=lambda n: int(n[1:])) for names in drawn)
    often = [name for r in range(200) for name in sample(profiles, 0.5, RoundContext(0, r))]
    assert all(60 < often.count(name) < 140 for name in profiles)  # 100 ± 8 sigma of 7


def test_each_round_draws_its_own_clients(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", rounds=6, fraction_train=0.5)
    profiles = {profile.name: profile for profile in outcome.run.transport.profiles()}
    drawn = [record.clients for record in outcome.records[1:]]
    assert drawn == [
        tuple(sample(profiles, 0.5, RoundContext(0, number))) for number in range(1, 7)
    ]
    assert len(set(drawn)) > 1


@dataclass(frozen=True)
class Fussy(FedAvg):
    """Leaves c1 out of every round."""

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction | None:
        return None if profile.name == "c1" else super().instruction(state, profile, context)


def test_a_client_without_an_order_is_not_of_the_round(tmp_path: Path) -> None:
    outcome = federate(Fussy(), silos(3), tmp_path / "run", rounds=1)
    assert outcome.records[-1].clients == ("c0", "c2")
    profiles = {profile.name: profile for profile in outcome.run.transport.profiles()}
    exchange = open_round(outcome.run, 1, outcome.server_state, profiles)
    assert list(exchange.profiles) == ["c0", "c2"]


# ---- evaluation


@dataclass(frozen=True)
class Stubborn(FedAvg):
    """Moves in its first round, and never again."""

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return super().step(state, combined, server) if server.context.round == 1 else state


def test_an_unchanged_model_is_not_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    evaluate = Perplexity.evaluate

    def counted(self: Perplexity, learner: Learner, split: str) -> Scores:
        asked.append(split)
        return evaluate(self, learner, split)

    monkeypatch.setattr(Perplexity, "evaluate", counted)
    found = federate(Stubborn(), silos(1), tmp_path / "run", rounds=4)
    on_the_server = [split for split in asked if split == "validation"]
    assert len(on_the_server) == 2, "before the first round, and after it"
    scores = [record.validation for record in found.records]
    assert scores[0] != scores[1] == scores[2] == scores[3] == scores[4]
    kept = read_evaluation(tmp_path / "run", "test-loss", 4)
    assert kept.metrics == found.records[4].test


# ---- the disk


def damaged(data: bytes, draw: random.Random) -> bytes:
    """One byte changed, or the end cut off, somewhere."""
    at = draw.randrange(len(data))
    if draw.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :]


def test_a_damaged_checkpoint_is_found_and_the_one_before_used(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")
    go(tmp_path / "stopped", stop_after=2)
    draw = random.Random(0)
    for number in range(30):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "stopped", folder)
        newest = max(checkpoints(folder))
        newest.write_bytes(damaged(newest.read_bytes(), draw))
        gone_on = go(folder)
        assert same(gone_on.server_state, whole.server_state)
        assert [record.round for record in gone_on.records] == [0, 1, 2, 3]
        assert gone_on.records[-1].test == whole.records[-1].test


# ---- the journal


def test_ledger_holds_the_real_lengths_of_the_messages(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    outcome = go(tmp_path / "run", network=tapped)
    rows = read_ledger(tmp_path / "run")
    asked = [(Request.parse(m).round, Request.parse(m).kind, len(m)) for m in taps[0].requests]
    assert [(row.round, row.kind, row.down) for row in rows] == asked
    answers = {(r.client, r.round, r.kind): len(m) for m in taps[0].replies for r in [_read(m)]}
    assert {(r.client, r.round, r.kind): r.up for r in rows} == answers
    for record in outcome.records:
        of_round = [row for row in rows if row.round == record.round]
        down, up = sum(row.down for row in of_round), sum(row.up for row in of_round)
        assert record.bytes == Traffic(down, up)


def _read(message: bytes) -> Reply:
    return Reply.parse(message)


def test_round_zero_is_before_all_training(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", stop_after=0)
    [record] = outcome.records
    assert record.round == 0
    assert record.bytes == Traffic(0, 0)
    assert not (record.clients or record.weight or record.train or record.client_test)
    assert record.test["loss"] == pytest.approx(torch.tensor(3.0).log().item())
    assert record.validation["loss"] == pytest.approx(torch.tensor(3.0).log().item())
    assert outcome.server_state.last_counted_rounds == {}


# ---- rounds that end


class Away(Meddler):
    """A network in which some clients do not answer in some rounds, until they are waited for."""

    def __init__(self, inner: Transport, away: dict[int, set[str]]) -> None:
        super().__init__(inner)
        self.away, self.gathered = away, list[tuple[list[str], int]]()

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind != "train" or client not in self.away.get(request.round, ()):
            super().send(client, message)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self.gathered.append(([*clients], required))
        self.away.clear()
        return True


def test_round_below_its_quorum_is_asked_again_and_changes_nothing(tmp_path: Path) -> None:
    networks: list[Away] = []

    def network(inner: Transport) -> Away:
        networks.append(Away(inner, {2: {"c1", "c3"}}))
        return networks[0]

    paused = go(tmp_path / "paused", network=network, quorum=3)
    assert same(paused.server_state, go(tmp_path / "plain").server_state)
    assert networks[0].gathered == [(list(paused.records[1].clients), 3)]


def test_round_with_its_quorum_goes_on_without_the_others(tmp_path: Path) -> None:
    away = {2: {"c1"}}
    short = go(tmp_path, network=lambda inner: Away(inner, away), quorum=3)
    assert [len(record.clients) for record in short.records[1:]] == [4, 3, 4]


def test_late_answers_are_not_used_and_counted(tmp_path: Path) -> None:
    old: list[bytes] = []

    def delayed(replies: list[bytes]) -> Iterable[bytes]:
        yield from old
        old[:] = replies[:1]
        yield from replies

    late = go(tmp_path / "late", network=lambda inner: Meddler(inner, rearranged=delayed))
    assert same(late.server_state, go(tmp_path / "plain").server_state)
    rows = [row for row in read_ledger(tmp_path / "late") if row.late is not None]
    assert {(row.round, row.late) for row in rows} >= {(2, 1), (3, 2)}
    assert all(row.up == 0 and row.unused > 0 for row in rows)


def test_of_more_clients_than_needed_the_first_to_answer_count(tmp_path: Path) -> None:
    def reversed_(replies: list[bytes]) -> Iterable[bytes]:
        return reversed(replies)

    run = go(
        tmp_path,
        network=lambda inner: Meddler(inner, rearranged=reversed_),
        fraction_train=0.5,
        over_selection=2.0,
    )
    assert [record.clients for record in run.records[1:]] == [("c2", "c3")] * 3
