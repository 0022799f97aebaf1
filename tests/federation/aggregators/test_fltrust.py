"""FLTrust against loops of its own."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from collected_rounds import attacked, combined, honest, round_of
from hanse.errors import UserError
from hanse.federation.aggregators.fltrust import FLTrust, trust_in
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import TooFewClientsError
from hanse.federation.messages import Reply
from toys import Meddler, federate, silos, with_tensors


def twin(rows: np.ndarray, root: int) -> np.ndarray:
    """Equations 2 to 4 of 2012.13995 on dense rows."""
    trusted = rows[root]
    total, trust = np.zeros_like(trusted), 0.0
    for row in np.delete(rows, root, axis=0):
        cosine = row @ trusted / np.linalg.norm(row) / np.linalg.norm(trusted)
        own = max(0.0, cosine)
        total += own * np.linalg.norm(trusted) / np.linalg.norm(row) * row
        trust += own
    return total / trust


@pytest.mark.parametrize("root", [0, 4])
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_it_is_its_twin(root: int, size: float) -> None:
    rows = attacked(honest(10), 3, size)
    result = combined(FLTrust(root=f"c{root}"), rows)
    np.testing.assert_allclose(result, twin(rows.astype(float), root), rtol=1e-4, atol=1e-5)


def test_a_majority_that_points_elsewhere_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = np.concatenate([honest(3, spread=0.1), -1e6 * honest(8, spread=0.1)])
    with caplog.at_level(logging.INFO):
        aggregate = FLTrust(root="c1").aggregate(round_of(rows))  # type: ignore[arg-type]
    assert aggregate.clients == ("c0", "c1", "c2") and len(aggregate.excluded) == 8
    assert "left out: their updates do not point the way that c1's does" in caplog.text
    assert np.abs(combined(FLTrust(root="c1"), rows) - rows[:3].mean(axis=0)).max() < 0.5


def test_a_trusted_update_of_nothing_changes_nothing() -> None:
    rows = honest(4)
    rows[2] = 0
    aggregate = FLTrust(root="c2").aggregate(round_of(rows))  # type: ignore[arg-type]
    assert aggregate.clients == ("c2",)
    assert not any(tensor.any() for tensor in aggregate.tensors.values())


def test_the_root_must_take_part() -> None:
    rows = honest(4)
    with pytest.raises(UserError, match=r"root is 'c9', which is not among .* round 1: c0, c1, c2"):
        FLTrust(root="c9").aggregate(round_of(rows))  # type: ignore[arg-type]
    with pytest.raises(TooFewClientsError) as caught:  # it was asked, and has not answered
        FLTrust(root="silent0").aggregate(round_of(rows, asked=5))  # type: ignore[arg-type]
    assert (caught.value.left, caught.value.required) == (4, 5)


class Compared(FLTrust):
    """The rule with the bound on norms of others, for the attack."""

    sets_norms: ClassVar[bool] = False


def test_a_majority_that_sends_nothing_decides_no_norm(tmp_path: Path) -> None:
    """With a median of 0 all honest updates were too long, and the run stopped."""

    def nothing(reply: Reply) -> Reply:
        if reply.kind != "train" or reply.client in ("c0", "c3", "c6"):
            return reply
        tensors = reply.update.tensors
        return with_tensors(reply, {name: torch.zeros_like(t) for name, t in tensors.items()})

    def go(rule: FLTrust, name: str) -> set[str]:
        network = lambda inner: Meddler(inner, changed=nothing)  # noqa: E731
        more: dict[str, Any] = {"network": network, "aggregator": rule, "max_norm_ratio": 50.0}
        outcome = federate(FedAvg(), silos(7), tmp_path / name, rounds=1, **more)
        return {*outcome.records[-1].clients}

    with pytest.raises(UserError, match=r"round 1"):
        go(Compared(root="c0"), "attacked")
    assert go(FLTrust(root="c0"), "run") == {"c0", "c3", "c6"}


def test_an_update_whose_products_overflow_has_no_trust() -> None:
    products = torch.full((3, 3), 2.0, dtype=torch.float64)
    products[2, :] = products[:, 2] = torch.inf
    assert trust_in(products, 0) == pytest.approx([0.0, 1.0, 0.0])
