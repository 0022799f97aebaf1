"""Under a rule that sees sums only, the server learns no number of a single client."""

from pathlib import Path
from typing import Any

import pytest

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from parts.noised_mean import NoisedUpdates
from parts.secure_sum import SecureSum
from toys import Outcome, federate, held_out, silos


def go(folder: Path, rule: Aggregator | None = None, **settings: Any) -> Outcome:
    return federate(FedAvg(), silos(3), folder, held_out(), aggregator=rule, **settings)


def test_no_client_is_asked_for_scores(tmp_path: Path) -> None:
    mean, summed = go(tmp_path / "mean"), go(tmp_path / "sums", SecureSum())
    assert set(mean.records[-1].client_test) == {"c0", "c1", "c2"}
    assert summed.records[-1].client_test == {}
    records = read_ledger(tmp_path / "sums")
    assert {record.kind for record in records} == {"keys", "train", "shares", "unmask"}
    assert not any(record.numbers for record in records)


@pytest.mark.parametrize(("rule", "refused"), [(SecureSum(), True), (None, False)])
def test_a_client_sends_no_scores_whoever_asks(
    tmp_path: Path, rule: Aggregator | None, refused: bool
) -> None:
    kept: list[ClientEndpoint] = []

    def keep(own: ClientEndpoint) -> ClientEndpoint:
        kept.append(own)
        return own

    go(tmp_path / "run", rule, endpoints=keep, rounds=1)
    model = Instruction(
        {n: p.detach() for n, p in held_out()(RoundContext(0), {}).parameters().items()}
    )
    reply = Reply.parse(respond(kept[0], Request("evaluate", 1, instruction=model).pack()))
    said = "SecureSum sees only sums, so a single client's scores do not leave it"
    assert (said in reply.error) is refused
    assert bool(reply.update.numbers) is not refused


def test_a_loss_is_summed(tmp_path: Path) -> None:
    plain = go(tmp_path / "mean", rounds=1)
    summed = go(tmp_path / "sum", SecureSum(), rounds=1)
    assert summed.records[1].train == {
        "loss": pytest.approx(plain.records[1].train["loss"], abs=1e-4)
    }


def test_what_a_mechanism_does_not_protect_is_not_summed(tmp_path: Path) -> None:
    noised = go(tmp_path / "run", SecureSum(), mechanisms=[NoisedUpdates(test_noise=True)])
    assert [record.train for record in noised.records[1:]] == [{}, {}, {}]
