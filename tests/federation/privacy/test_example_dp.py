"""Example-level privacy: what hides a row, the account of each silo, and mutants that do not."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.accounting.epsilon import GaussianReleases, epsilon
from hanse.federation.accounting.run_account import planned
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.ditto import Ditto
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.fedprox import FedProx
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.int8 import Int8
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.row_protection import Sampling
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.federation.noise import os_noise
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.privacy.example_dp import ClippedRows, ExampleDp
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_releases
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from stopping import die_at_write, killed
from toys import Meddler, Outcome, federate, same, silos

pytestmark = pytest.mark.extras
pytest.importorskip("dp_accounting")
CONTEXT = RoundContext(0, 1, "c0", rounds=3)
C, Z, SIZE = 0.5, 3.0, 10**6
DELTA = 1e-5
WHOLE = TrainingSettings(  # the batch is all rows
    learning_rate=0.1, per_device_train_batch_size=48, optim="sgd", max_steps=2, max_grad_norm=0.0
)
PART = TrainingSettings(
    learning_rate=0.1, per_device_train_batch_size=4, optim="sgd", max_steps=5, max_grad_norm=0.0
)


def go(folder: Path, part: ExampleDp, algorithm: Algorithm | None = None, **more: Any) -> Outcome:
    clients = silos(more.pop("number", 3), more.pop("training", WHOLE))
    settings = {"rounds": 3, "mechanisms": [part], **more}
    return federate(algorithm or FedAvg(), clients, folder, **settings)


def account(folder: Path) -> PrivacyRecord:
    record = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert record is not None
    return record


def at_silo(folder: Path, name: str = "c0") -> PrivacyRecord:
    return account(folder / "clients" / name)


def spent(folder: Path, name: str) -> float:
    """ε of all lines of a silo's log."""
    lines = [r.mechanisms[0].numbers for r in read_releases(folder / "clients" / name)]
    steps = [
        GaussianReleases(own["noise_multiplier"], own["sampling"], int(own["steps"]))
        for own in lines
    ]
    return epsilon(steps, DELTA)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Draws that follow from round and silo, from their first one on after each call."""
    generators: dict[RoundContext, torch.Generator] = {}

    def drawn(count: int, context: RoundContext) -> bytes:
        draw = generators.setdefault(context, context.generator("noise"))
        return torch.randint(-(2**62), 2**62, [count // 8], generator=draw).numpy().tobytes()

    monkeypatch.setattr(os_noise, "random_bytes", drawn)
    return generators.clear


# ---- what hides a row, and mutants


def flaws(protection: ClippedRows, z: float = Z, clip: float = C) -> set[str]:
    """What an honest figure of ε needs, and this protection does not do."""
    found = set()
    norms = torch.tensor([0.0, 1e-9, clip, 1.7, 3e4, 1e30], dtype=torch.float64)
    if bool((protection.shares(norms) * norms > clip * (1 + 1e-6)).any()):
        found.add("it does not clip")
    drawn = protection.noise(torch.Size([SIZE]))
    if float(drawn.std()) < z * clip * 0.98:
        found.add("too little noise")
    if float(drawn.std()) > z * clip * 1.02 or abs(float(drawn.mean())) > z * clip * 0.005:
        found.add("too much noise")
    sampling = Sampling(1_000, 0.1, 1)
    sizes = torch.tensor([float(len(protection.draw(sampling))) for _ in range(1000)])
    if abs(float(sizes.mean()) - 100) > 2.5:  # 8 standard deviations
        found.add("the share of rows is another one")
    if not 0.75 < float(sizes.var()) / 90 < 1.33:  # binomial: rows are drawn each by itself
        found.add("this is no Poisson sampling")
    if protection.draw(sampling) == protection.draw(sampling):
        found.add("it draws the same rows again")
    return found


class NoNoise(ClippedRows):
    def noise(self, shape: torch.Size) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)


class NoClip(ClippedRows):
    def shares(self, norms: Tensor) -> Tensor:
        return torch.ones_like(norms)


class HalfSensitivity(ClippedRows):
    def noise(self, shape: torch.Size) -> Tensor:
        return super().noise(shape) / 2


class DividedTwice(ClippedRows):
    """The learner divides the sum, and its noise, by the number of rows."""

    def noise(self, shape: torch.Size) -> Tensor:
        return super().noise(shape) / 100


class Shuffled(ClippedRows):
    """Batches of one size from a shuffled list."""

    def draw(self, sampling: Sampling) -> list[int]:
        return torch.randperm(sampling.rows)[: round(sampling.expected)].tolist()


class Seeded(ClippedRows):
    def draw(self, sampling: Sampling) -> list[int]:
        uniform = torch.rand(sampling.rows, generator=self.context.generator("rows"))
        return (uniform < sampling.probability).nonzero()[:, 0].tolist()


def test_what_hides_a_row_has_no_flaw() -> None:
    assert flaws(ClippedRows(C, Z, CONTEXT)) == set()


@pytest.mark.parametrize(
    ("mutant", "flaw"),
    [
        (NoNoise, "too little noise"),
        (NoClip, "it does not clip"),
        (HalfSensitivity, "too little noise"),
        (DividedTwice, "too little noise"),
        (Shuffled, "this is no Poisson sampling"),
        (Seeded, "it draws the same rows again"),
    ],
)
def test_mutants_are_caught(mutant: type[ClippedRows], flaw: str) -> None:
    assert flaw in flaws(mutant(C, Z, CONTEXT))


def test_draws_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(count: int) -> bytes:
        asked.append(count)
        return b"\0" * count

    monkeypatch.setattr(os, "urandom", counted)
    protection = ClippedRows(C, Z, CONTEXT)
    assert len(protection.draw(Sampling(10, 0.5, 1))) == 10  # each number is next to 0
    protection.noise(torch.Size([5]))
    assert asked == [80, 48]


def test_rows_that_are_all_read_need_no_draw() -> None:
    assert ClippedRows(C, Z, CONTEXT).draw(Sampling(5, 1.0, 1)) == [0, 1, 2, 3, 4]


def test_a_gradient_that_is_no_number_counts_for_nothing() -> None:
    norms = torch.tensor([math.inf, math.nan, 1.0])
    assert ClippedRows(C, Z, CONTEXT).shares(norms)[:2].tolist() == [0, 0]


# ---- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": None}, "privacy.example_dp.clip is none"),
        ({"epsilon": None}, "neither epsilon nor noise_multiplier"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0, which keeps no epsilon"),
    ],
)
def test_settings_that_promise_nothing(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ExampleDp(**settings)


def test_a_noise_that_does_not_keep_the_budget() -> None:
    part, context = ExampleDp(epsilon=2.0, noise_multiplier=1.0), RoundContext(0, rounds=9)
    with pytest.raises(UserError, match="the 50 rows of c1, with 2 steps in each of 9 rounds"):
        part.require_rows(Sampling(50, 1.0, 2), "c1", context)


def test_a_delta_that_may_give_a_row_away() -> None:
    part = ExampleDp(epsilon=None, delta=0.02, noise_multiplier=1.0)
    [remark] = part.require_rows(Sampling(50, 1.0, 2), "c1", CONTEXT)
    assert "one of the 50 rows of c1" in remark


def pipelines(*codecs: Any) -> Pipelines:
    return Pipelines(Pipeline("upload", codecs, (ExampleDp(),)))


def test_algorithms_that_read_rows_otherwise_are_refused() -> None:
    check(FedProx(), Mean(), pipelines(Int8()))
    check(FedNova(), Mean(), pipelines())
    with pytest.raises(UserError, match=r"ExampleDp hides each row .* Ditto may read rows"):
        check(Ditto(), Mean(), pipelines())


@dataclass(frozen=True)
class Untold(FedAvg):
    """It overrides train, and does not say that it fits once."""

    def train(self, instruction: Any, client: Any) -> Update:
        return super().train(instruction, client)


def test_an_algorithm_of_others_says_so_itself() -> None:
    with pytest.raises(UserError, match="Untold may read rows"):
        check(Untold(), Mean(), pipelines())


# ---- the account


def test_epsilon_of_steps() -> None:
    part = ExampleDp(epsilon=None, noise_multiplier=1.2)
    release = part.training(Sampling(100, 0.1, 7), CONTEXT)
    record = part.account([release] * 3, CONTEXT)
    assert record.epsilon == epsilon([GaussianReleases(1.2, 0.1, 21)], DELTA)
    assert (record.unit, record.releases, record.clip) == ("row", 3, 1.0)
    assert part.account([], CONTEXT).epsilon == 0


def test_the_noise_of_a_budget() -> None:
    part, sampling = ExampleDp(epsilon=8.0), Sampling(100, 1.0, 7)
    release = part.training(sampling, CONTEXT)
    record = part.account([release] * 3, CONTEXT)
    assert record.epsilon is not None and 7.9 < record.epsilon <= 8 and not record.exceeds


def test_the_accounts_of_silos_and_of_the_run(tmp_path: Path) -> None:
    part = ExampleDp(epsilon=None, noise_multiplier=1.0, clip=0.5)
    outcome = go(tmp_path / "run", part, training=PART, rounds=1)
    own = [at_silo(tmp_path / "run", f"c{n}") for n in range(3)]
    for n, record in enumerate(own):
        assert record.epsilon == spent(tmp_path / "run", f"c{n}") and record.releases == 1
    costs = [record.epsilon or 0.0 for record in own]
    assert costs[0] > costs[1] > costs[2] > 0  # fewer rows, a larger share of them in each step
    run = account(tmp_path / "run")
    assert run.epsilon == costs[0]
    assert run.sentence().endswith("for a row, in 1 releases")
    drawn = {outcome.run.sampling(profile) for profile in outcome.run.profiles().values()}
    assert planned(outcome.run.method, outcome.run.context(1), drawn) == run
    # Only what follows from the settings leaves a silo.
    [record] = outcome.records[1:]
    assert record.train.keys() == {"steps", "sum_lr", "sum_clipped_lr", "sum_a"}
    assert record.train["steps"] == 5 and not record.client_test


def test_past_rounds_keep_their_noise_and_their_silos(tmp_path: Path) -> None:
    """A resumed run has other settings, and the silo with the fewest rows has left."""
    folder = tmp_path / "run"
    quiet, loud = (ExampleDp(epsilon=None, noise_multiplier=z) for z in (1.0, 9.0))
    go(folder, quiet, training=PART, stop_after=2)
    early = at_silo(folder, "c0").epsilon
    rest = {name: make for name, make in silos(3, PART).items() if name != "c0"}
    federate(FedAvg(), rest, folder, rounds=3, mechanisms=[loud])
    assert [at_silo(folder, name).releases for name in ("c0", "c1")] == [2, 3]
    assert account(folder).epsilon == early == spent(folder, "c0")


def test_a_round_that_is_asked_again_from_another_state_counts_again(tmp_path: Path) -> None:
    folder, part = tmp_path / "run", ExampleDp(epsilon=None, noise_multiplier=1.0)
    go(folder, part, training=PART, rounds=2)
    for file in folder.glob("state*"):  # the server goes back to the start, and c2 is silent
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    (folder / "metrics.jsonl").unlink()
    lost = lambda client, kind, round: client == "c2"  # noqa: E731
    network = lambda inner: Meddler(inner, lost=lost)  # noqa: E731
    go(folder, part, training=PART, rounds=2, network=network, deadline=0.0)
    assert account(folder).epsilon == at_silo(folder).epsilon == spent(folder, "c0")
    assert at_silo(folder).releases == 3


def test_rounds_without_a_record_are_not_taken_for_protected(tmp_path: Path) -> None:
    folder, part = tmp_path / "run", ExampleDp(epsilon=None, noise_multiplier=1.0)
    go(folder, part, training=PART, rounds=2, stop_after=1, mechanisms=[])
    go(folder, part, training=PART, rounds=2)
    assert account(folder).epsilon is None


def test_a_training_beyond_the_budget_is_refused_at_the_silo(tmp_path: Path) -> None:
    """A server that asks for more rounds, or asks a round again in other words."""
    two, three = (epsilon([GaussianReleases(2.0, 1.0, 2 * n)], DELTA) for n in (2, 3))
    part = ExampleDp(epsilon=(two + three) / 2, noise_multiplier=2.0)
    networks: list[Meddler] = []

    def network(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    with pytest.raises(UserError, match=rf"round 3 would bring the run to ε = {three:.4g}"):
        go(tmp_path / "run", part, network=network)
    requests = [Request.parse(message) for message in networks[0].requests]
    assert {request.round for request in requests if request.kind == "train"} == {1, 2}
    assert at_silo(tmp_path / "run").epsilon == two == account(tmp_path / "run").epsilon


def test_a_silo_counts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server that keeps the budget, the silos refuse."""
    two, three = (epsilon([GaussianReleases(2.0, 1.0, 2 * n)], DELTA) for n in (2, 3))
    part = ExampleDp(epsilon=(two + three) / 2, noise_multiplier=2.0)
    monkeypatch.setattr("hanse.federation.server.admit_round", lambda *_: None)
    with pytest.raises(UserError, match=r"training in round 3 would bring this silo to .* stands"):
        go(tmp_path / "run", part)
    assert at_silo(tmp_path / "run").releases == 2


def test_killed_at_any_write_no_account_is_below_what_was_released(tmp_path: Path) -> None:
    start, part = tmp_path / "start", ExampleDp(epsilon=None, noise_multiplier=2.0)
    release = part.training(Sampling(8, 1.0, 2), CONTEXT)
    for count in (1, 2):  # known before any fork
        part.account([release] * count, CONTEXT)
    go(start, part, rounds=2, stop_after=1)
    released: list[int] = []
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        shutil.copytree(start, folder)

        def work(folder: Path = folder, number: int = number) -> None:
            own = [folder / "clients" / "c0" / name for name in ("privacy", "releases")]
            server = [folder / name for name in ("privacy", "metrics", "state")]
            die_at_write(number, *own, *server)
            go(folder, part, rounds=2)

        if not killed(work):
            break
        lines = len(read_releases(folder / "clients" / "c0"))
        released.append(lines)
        known = at_silo(folder).epsilon
        assert known is not None and known >= spent(folder, "c0") - 1e-12
        go(folder, part, rounds=2)
        assert at_silo(folder).epsilon == spent(folder, "c0") == account(folder).epsilon
        assert [r.round for r in read_releases(folder / "clients" / "c0")] == [1, 2]
    assert {*released} == {1, 2}


# ---- training


def test_without_noise_and_limit_it_is_full_batch_descent(tmp_path: Path) -> None:
    part = ExampleDp(epsilon=None, clip=1e9, noise_multiplier=0.0)
    for algorithm in (FedAvg(), FedProx(mu=0.3)):
        private = go(tmp_path / f"{algorithm}", part, algorithm)
        plain = go(tmp_path / f"{algorithm} plain", part, algorithm, mechanisms=[])
        own, other = (run.server_state.algorithm_state["model"] for run in (private, plain))
        for name, tensor in other.items():
            torch.testing.assert_close(own[name], tensor, atol=1e-5, rtol=1e-5)
        assert account(tmp_path / f"{algorithm}").epsilon is None


def test_a_stopped_run_ends_as_a_whole_one(tmp_path: Path, repeatable: Callable[[], None]) -> None:
    part = ExampleDp(epsilon=None, noise_multiplier=1.0)
    whole = go(tmp_path / "whole", part, training=PART, number=1)
    for round in (0, 1, 2):
        folder = tmp_path / f"{round}"
        repeatable()
        go(folder, part, training=PART, number=1, stop_after=round)
        repeatable()
        resumed = go(folder, part, training=PART, number=1)
        assert same(resumed.server_state, whole.server_state)
        assert at_silo(folder) == at_silo(tmp_path / "whole")


def test_the_same_update_is_sent_again(tmp_path: Path) -> None:
    """A repeated request gets what was released, and costs nothing; another one has its price."""
    networks: list[Meddler] = []
    endpoints: dict[str, ClientEndpoint] = {}

    def network(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    def kept(own: ClientEndpoint) -> ClientEndpoint:
        return endpoints.setdefault(own.profile.name, own)

    part = ExampleDp(epsilon=None, noise_multiplier=1.0)
    go(tmp_path / "run", part, rounds=1, network=network, endpoints=kept)
    request = next(m for m in networks[0].requests if Request.parse(m).kind == "train")
    first, again = (Reply.parse(respond(endpoints["c0"], request)).update for _ in range(2))
    assert all(torch.equal(first.tensors[n], t) for n, t in again.tensors.items())
    assert at_silo(tmp_path / "run").releases == 1
    parsed = Request.parse(request)
    moved = Instruction({name: t + 1 for name, t in parsed.instruction.tensors.items()})
    other = Reply.parse(respond(endpoints["c0"], replace(parsed, instruction=moved).pack()))
    assert not other.error and at_silo(tmp_path / "run").releases == 2
    assert at_silo(tmp_path / "run").epsilon == spent(tmp_path / "run", "c0")


def test_the_seed_of_dropout_comes_from_the_operating_system() -> None:
    protection = ClippedRows(1.0, 1.0, CONTEXT)
    seeds = {protection.dropout_seed() for _ in range(5)}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
