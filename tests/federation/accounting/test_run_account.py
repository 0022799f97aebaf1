"""The account of a run: settled before a round is asked, and never below what was released."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.federation.accounting.epsilon import GaussianReleases, epsilon
from hanse.federation.accounting.run_account import planned
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.int8 import Int8
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.messages import Reply, Request
from hanse.federation.noise import os_noise
from hanse.federation.privacy.client_dp import ClientDp
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_releases, read_rounds
from hanse.randomness import RoundContext
from hanse.tensors.named import norm, scale, subtract
from parts.noised_mean import NoisedMean
from parts.repeatable_dp import random_bytes
from stopping import die_at_write, killed
from toys import Meddler, Outcome, federate, held_out, same, silos, with_tensors

pytestmark = pytest.mark.extras
pytest.importorskip("dp_accounting")
DELTA = 1e-5


def go(folder: Path, part: Mechanism, rounds: int = 3, **more: Any) -> Outcome:
    return federate(FedAvg(), silos(3), folder, rounds=rounds, mechanisms=[part], **more)


def account(folder: Path) -> PrivacyRecord:
    record = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert record is not None
    return record


def spent(folder: Path) -> float:
    """ε of all lines of the log."""
    lines = read_releases(folder)
    multipliers = [line.mechanisms[0].numbers["noise_multiplier"] for line in lines]
    return epsilon(map(GaussianReleases, multipliers), DELTA)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that follows from the round."""
    monkeypatch.setattr(os_noise, "random_bytes", random_bytes)


def test_the_account_of_a_run(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", ClientDp(epsilon=8.0, clip=0.5))
    record = account(tmp_path / "run")
    assert (record.mechanism, record.unit, record.releases) == ("client_dp", "silo", 3)
    assert record.epsilon == spent(tmp_path / "run") and 7.9 < record.epsilon <= 8
    assert (record.delta, record.budget, record.clip) == (DELTA, 8.0, 0.5)
    expected = planned(outcome.run.method, outcome.run.context(1))
    assert expected == record
    assert record.sentence().endswith(" at δ = 1e-05 for a silo, in 3 releases")
    # Nothing of a single silo is in what the run shows: neither its loss nor its scores.
    assert all(not r.train and not r.client_test for r in outcome.records)
    assert outcome.records[1].weight == 3


def test_a_toy_that_promises_nothing_has_no_account(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", NoisedMean())
    assert not (tmp_path / "run" / PRIVACY).exists()
    assert planned(outcome.run.method, outcome.run.context(1)) is None


def test_without_noise_nothing_is_bounded(tmp_path: Path) -> None:
    go(tmp_path / "run", ClientDp(epsilon=None, noise_multiplier=0.0))
    assert account(tmp_path / "run").epsilon is None
    assert account(tmp_path / "run").sentence().startswith("ε = unbounded")


def test_a_round_beyond_the_budget_is_not_asked(tmp_path: Path) -> None:
    folder, networks = tmp_path / "run", []

    def network(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    two, three = (epsilon([GaussianReleases(2.0, 1.0, count)], DELTA) for count in (2, 3))
    part = ClientDp(epsilon=(two + three) / 2, noise_multiplier=2.0)
    with pytest.raises(UserError, match=rf"round 3 would .*ε = {three:.4g} .*2 releases stands"):
        go(folder, part, rounds=5, network=network)
    asked = [Request.parse(request) for request in networks[0].requests]
    assert {request.round for request in asked if request.kind == "train"} == {1, 2}
    assert len(read_releases(folder)) == 2 and read_rounds(folder)[-1].round == 2
    assert account(folder).epsilon == two


def test_former_rounds_count_with_their_own_noise(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(folder, ClientDp(epsilon=None, noise_multiplier=1.5), stop_after=2)
    go(folder, ClientDp(epsilon=None, noise_multiplier=4.0, clip=0.1))
    parts = [GaussianReleases(1.5, 1.0, 2), GaussianReleases(4.0)]
    assert account(folder).epsilon == epsilon(parts, DELTA)


def test_the_price_of_a_round_that_is_drawn_again(tmp_path: Path) -> None:
    """Whatever was written in the log was perhaps seen, even if its round was not committed."""
    folder, part = tmp_path / "run", ClientDp(noise_multiplier=2.0)
    go(folder, part, stop_after=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FedAvg, "step", _fail)
        with pytest.raises(ZeroDivisionError):
            go(folder, part)
    assert [line.round for line in read_releases(folder)] == [1, 2]
    assert account(folder).epsilon == spent(folder) == epsilon([GaussianReleases(2.0)] * 2, DELTA)
    shutil.rmtree(folder / "releases")  # its content, without which the noise cannot be used
    with pytest.raises(UserError, match="must not be drawn again"):
        go(folder, part)


def _fail(*_: object) -> None:
    raise ZeroDivisionError


def test_killed_at_any_write_the_account_is_never_below_what_was_released(tmp_path: Path) -> None:
    start, part = tmp_path / "start", ClientDp(epsilon=8.0)
    go(start, part, rounds=2, stop_after=1)
    lines_at_kill: list[int] = []
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        shutil.copytree(start, folder)

        def work(folder: Path = folder, number: int = number) -> None:
            names = ("privacy", "releases", "metrics", "state", "ledger")
            die_at_write(number, *(folder / name for name in names))
            go(folder, part, rounds=2)

        if not killed(work):
            break
        lines_at_kill.append(len(read_releases(folder)))
        known, committed = account(folder).epsilon, read_rounds(folder)[-1].round
        assert known is not None and known >= spent(folder) - 1e-12
        assert len(read_releases(folder)) >= committed
        after = go(folder, part, rounds=2)
        assert [line.round for line in read_releases(folder)] == [1, 2]
        assert account(folder).epsilon == spent(folder) and after.records[-1].round == 2
    assert {*lines_at_kill} == {1, 2} and len(lines_at_kill) > 6


def test_a_stopped_run_ends_as_a_whole_one(tmp_path: Path, repeatable: None) -> None:
    for name, part in (
        ("fixed", ClientDp(epsilon=8.0)),
        ("adaptive", ClientDp(epsilon=None, noise_multiplier=0.2, quantile=0.5)),
    ):
        whole = go(tmp_path / name, part)
        for round in (0, 1, 2):
            folder = tmp_path / f"{name} {round}"
            go(folder, part, stop_after=round)
            assert same(go(folder, part).server_state, whole.server_state)
            assert account(folder) == account(tmp_path / name)


@pytest.mark.parametrize("codecs", [[], [Int8()]])
def test_a_client_that_does_not_clip_is_clipped(tmp_path: Path, codecs: list[Any]) -> None:
    """An int8 code has no norm; what it decodes to has."""
    clip = 0.01

    def lie(reply: Reply) -> Reply:
        if reply.kind != "train" or reply.client != "c1":
            return reply
        large = {
            n: t * 1e6 if t.is_floating_point() else t for n, t in reply.update.tensors.items()
        }
        return with_tensors(reply, large)

    part = ClientDp(epsilon=None, clip=clip, noise_multiplier=1e-6)
    folder = tmp_path / "run"
    outcome = go(
        folder, part, rounds=1, upload=codecs, network=lambda inner: Meddler(inner, changed=lie)
    )
    before = held_out()(RoundContext(0), {}).initial()
    change = norm(subtract(outcome.server_state.algorithm_state["model"], before))
    assert 0 < change <= clip * 1.001


def test_a_dropped_client_leaves_its_place_empty(tmp_path: Path, repeatable: None) -> None:
    """n is fixed: with one client of three, the result is a third of its clipped update."""
    only = Meddler

    def network(inner: Any) -> Meddler:
        return only(inner, lost=lambda client, kind, round: client != "c0")

    part = ClientDp(epsilon=None, clip=0.01, noise_multiplier=1e-9)
    outcome = go(tmp_path / "run", part, rounds=1, network=network, deadline=0.0)
    before = held_out()(RoundContext(0), {}).initial()
    change = subtract(outcome.server_state.algorithm_state["model"], before)
    assert norm(scale(change, 3)) == pytest.approx(0.01, rel=1e-3)


def test_norms_of_others_do_not_decide_who_counts(tmp_path: Path) -> None:
    """Screening would drop one silo because of another one, which the noise does not hide."""
    part = ClientDp(epsilon=None, clip=1e9, noise_multiplier=0.0)
    outcome = go(tmp_path / "run", part, rounds=1, max_norm_ratio=1.001)
    assert outcome.records[1].clients == ("c0", "c1", "c2")


def test_rounds_up_in_words() -> None:
    record = PrivacyRecord(
        mechanism="client_dp", unit="silo", epsilon=1.23449, delta=DELTA, releases=1, budget=1.2
    )
    assert float(record.sentence().split()[2]) >= 1.23449 and record.exceeds
    shown = {1.23449: "1.235", 8.9994: "9", 8.999: "8.999", 0.0: "0", 1e-6: "1e-06"}
    for exact, digits in shown.items():
        assert replace(record, epsilon=exact).sentence().split()[2] == digits


@pytest.fixture(autouse=True, scope="module")
def _computed_once() -> None:
    """The accountant is loaded, and the noise known, before any process is forked."""
    ClientDp(epsilon=8.0).require(RoundContext(0, rounds=2, clients=3))
