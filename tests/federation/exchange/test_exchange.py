"""The exchange of a round tells a rule what its clients have in common."""

import time
from pathlib import Path

import pytest

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.exchange.round import open_round
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.exchange import Exchange
from hanse.federation.messages import Reply
from hanse.federation.sums import NUMBERS, WEIGHT
from hanse.journal.run_folder import read_ledger
from parts.secure_sum import SecureSum
from toys import Meddler, Outcome, federate, held_out, silos


def opened(outcome: Outcome, round: int = 2) -> Exchange:
    run = outcome.run
    return open_round(run, round, outcome.server_state, run.profiles())


@pytest.mark.parametrize(("algorithm", "bound"), [(FedAvg(), 20.0), (Scaffold(), 1.0)])
def test_the_bound_of_weights_is_that_of_the_largest_client(
    tmp_path: Path, algorithm: Algorithm, bound: float
) -> None:
    exchange = opened(federate(algorithm, silos(4), tmp_path / "run", rounds=1))
    assert exchange.weight_bound() == bound


def test_a_summand_has_the_layout_that_was_announced(tmp_path: Path) -> None:
    outcome = federate(FedNova(), silos(3), tmp_path / "run", rounds=1, aggregator=SecureSum())
    announced = opened(outcome).summand_layout()
    assert {WEIGHT, NUMBERS} < announced.keys()
    sealed = {profile.name: tensors for profile, tensors in opened(outcome).sealed()}
    for tensors in sealed.values():
        assert {n: t.shape for n, t in tensors.items()} == {
            n: form.shape  # type: ignore[union-attr]
            for n, form in announced.items()
        }


def test_requests_that_differ_have_no_common_digest(tmp_path: Path) -> None:
    learners = {f"c{rank}": silos(1, rank=rank)["c0"] for rank in (1, 2)}
    outcome = federate(HetLoRA(), learners, tmp_path / "run", held_out(rank=2), rounds=1)
    with pytest.raises(TypeError, match="c1 and c2 get different requests"):
        opened(outcome).digest()
    alike = federate(HetLoRA(), silos(2, rank=2), tmp_path / "alike", held_out(rank=2), rounds=1)
    assert len(opened(alike).digest()) == 32


def test_the_ledger_has_the_time_at_which_each_reply_came(tmp_path: Path) -> None:
    """Replies are used in client order, whichever comes first."""

    def slow(reply: Reply) -> Reply:
        time.sleep(0.3 if reply.client == "c0" else 0.0)
        return reply

    federate(
        FedAvg(),
        silos(2),
        tmp_path,
        rounds=1,
        network=lambda inner: Meddler(inner, changed=slow, rearranged=lambda own: own[::-1]),
    )
    came = {r.client: r.answered_at for r in read_ledger(tmp_path) if r.kind == "train"}
    assert came["c0"] - came["c1"] >= 0.25
