"""The account of a silo that draws noise itself: its owner's limit holds, whatever is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from hanse.errors import UserError
from hanse.federation.accounting.silo_account import admit_training
from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import ClientProfile, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.releases import ReleaseLog
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.records import Mechanism as Drawn
from hanse.journal.records import ReleaseRecord
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Numbers
from toys import silos


@dataclass(frozen=True)
class Shares(Mechanism):
    """Each release costs `price`; the sum hides the update."""

    noise: ClassVar[frozenset[str]] = frozenset({"share"})
    price: float = 1.0
    budget: float | None = None

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return update

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return update

    def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord:
        return PrivacyRecord(
            mechanism="toy",
            unit="row" if self.protects_rows else "silo",
            epsilon=sum(release["price"] for release in releases),
            delta=1e-5,
            releases=len(releases),
            budget=self.budget,
        )


@dataclass(frozen=True)
class Rows(Shares):
    """The same for rows, which are hidden in training."""

    noise: ClassVar[frozenset[str]] = frozenset({"encode"})
    protects_rows: ClassVar[bool] = True

    def protect(self, learner: Learner, context: RoundContext) -> Numbers:
        return {"price": self.price}


@dataclass
class Silo:
    """One silo, which trains and releases as often as it admits."""

    folder: Path

    def train(self, part: Shares, limit: float | None, round: int = 1) -> None:
        log = ReleaseLog(self.folder)
        pipelines = Pipelines(Pipeline("upload", (), (part,)))
        method = cast(Method, SimpleNamespace(pipelines=pipelines))  # no rule of sums is needed
        name, context = type(part).__name__, RoundContext(0, round, "c0", 3, 3)
        client = Client(ClientProfile("c0", 8), silos(1)["c0"](context, {}), {}, {}, context)
        drawn = (Drawn(name, {"price": part.price}),)
        noise = admit_training(log, method, client, drawn, limit)
        assert noise == drawn
        request = f"{len(log.records)}"  # another one each time
        record = ReleaseRecord(
            round=round, mechanisms=noise, clients=("c0",), weight=1.0, request=request
        )
        log.keep(record, request.encode())


@pytest.mark.parametrize("kind", [Shares, Rows])
def test_different_requests_of_one_round_add_up(tmp_path: Path, kind: type[Shares]) -> None:
    """The plan of the job has one training, and the server asked for three."""
    silo = Silo(tmp_path / "silo")
    for _ in range(2):
        silo.train(kind(), limit=2.5)
    with pytest.raises(RefusalError, match=r"more than the largest ε of 2\.5 .* 2 releases"):
        silo.train(kind(), limit=2.5)
    assert len(ReleaseLog(tmp_path / "silo").records) == 2
    assert (tmp_path / "silo" / PRIVACY).exists() == (kind is Rows)
    silo.train(kind(), limit=None)


@pytest.mark.parametrize("kind", [Shares, Rows])
def test_an_earlier_job_under_the_same_name_counts(tmp_path: Path, kind: type[Shares]) -> None:
    silo = Silo(tmp_path / "silo")
    silo.train(kind(price=2.0), limit=2.5)
    with pytest.raises(RefusalError, match="1 releases of the run before"):
        silo.train(kind(price=0.6, budget=100.0), limit=2.5)
    silo.train(kind(price=0.5), limit=2.5)


def test_noise_of_another_job_that_cannot_be_added_up(tmp_path: Path) -> None:
    silo = Silo(tmp_path / "silo")
    silo.train(Rows(), limit=2.5)
    with pytest.raises(RefusalError, match="with the noise of Rows, which this job lacks"):
        silo.train(Shares(), limit=2.5)
    silo.train(Shares(), limit=None)


def test_the_smaller_of_limit_and_budget_counts(tmp_path: Path) -> None:
    silo = Silo(tmp_path / "silo")
    silo.train(Rows(budget=1.5), limit=9.0)
    with pytest.raises(UserError, match=r"above its budget of 1\.5") as caught:
        silo.train(Rows(budget=1.5), limit=9.0)
    assert not isinstance(caught.value, RefusalError)  # its sentence tells ε of rows


def test_an_account_without_a_bound_is_beyond_any_limit(tmp_path: Path) -> None:
    class Unbounded(Rows):
        def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord:
            return replace(super().account(releases, context), epsilon=None)

    with pytest.raises(RefusalError, match=r"policy\.privacy accepts"):
        Silo(tmp_path / "silo").train(Unbounded(), limit=9.0)
