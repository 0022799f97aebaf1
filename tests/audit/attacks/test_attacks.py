"""What each attack sends, against loops and definitions of its own, and properties of all."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hanse import registry
from hanse.audit.attack import Attack, Updates
from hanse.audit.attacks.alie import Alie, largest_z
from hanse.audit.attacks.gaussian import Gaussian
from hanse.audit.attacks.ipm import Ipm
from hanse.audit.attacks.min_max import MinMax
from hanse.audit.attacks.model_replacement import ModelReplacement
from hanse.audit.attacks.sign_flip import SignFlip
from hanse.errors import UserError

FOLDER = "audit/attacks"
NAMES = registry.names(FOLDER)
CLIENTS = [f"c{place}" for place in range(11)]
every_attack = pytest.mark.parametrize("name", NAMES)


def known(own: int = 2, honest: int = 9, size: int = 50, seed: int = 0) -> Updates:
    """A round of random updates around a common one."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, generator=draw, dtype=torch.float64) + torch.randn(
        own + honest, size, generator=draw, dtype=torch.float64
    )
    weights = torch.arange(1.0, own + honest + 1, dtype=torch.float64)
    mine, others = rows[:own], rows[own:]
    return Updates(mine, others, weights[:own], weights[own:], torch.Generator().manual_seed(7))


def built(name: str, **settings: object) -> Attack:
    part: Attack = registry.build(FOLDER, {name: settings})
    return part


def test_all_attacks_are_here() -> None:
    assert len(NAMES) >= 6


@every_attack
@pytest.mark.parametrize(("own", "honest"), [(2, 9), (1, 1), (3, 4)])
def test_each_attacker_sends_an_update_that_a_server_takes(
    name: str, own: int, honest: int
) -> None:
    sent = built(name).sent(known(own, honest))
    assert sent.shape == (own, 50) and bool(torch.isfinite(sent).all())


@every_attack
def test_nothing_depends_on_more_than_updates_and_seed(name: str) -> None:
    torch.testing.assert_close(built(name).sent(known()), built(name).sent(known()), rtol=0, atol=0)


@every_attack
def test_updates_of_nothing_are_borne(name: str) -> None:
    updates = known()
    updates.own.zero_()
    updates.honest.zero_()
    sent = built(name).sent(updates)
    assert name == "gaussian" or not sent.any()
    assert bool(torch.isfinite(sent).all())


def test_the_plain_ones_are_their_formulas() -> None:
    updates = known()
    torch.testing.assert_close(SignFlip(factor=10).sent(updates), -10 * updates.own)
    [first, second] = Ipm(epsilon=2).sent(updates)
    torch.testing.assert_close(first, -2 * updates.honest.mean(dim=0))
    assert torch.equal(first, second)


@pytest.mark.parametrize("factor", [10.0, 100.0])
def test_gaussian_noise_has_the_size_of_the_update(factor: float) -> None:
    updates = known(size=4000)
    sent = Gaussian(factor=factor).sent(updates)
    torch.testing.assert_close(sent.norm(dim=1), factor * updates.own.norm(dim=1))
    cosines = torch.corrcoef(torch.cat([sent, updates.own]))
    assert cosines.fill_diagonal_(0)[:2, :2].abs().max() < 0.06  # two of them draw differently
    assert cosines[:2, 2:].abs().max() < 0.06


@pytest.mark.parametrize(
    ("attackers", "clients", "quantile"), [(2, 11, 5 / 9), (24, 51, 25 / 27), (10, 50, 24 / 40)]
)
def test_alie_stays_where_enough_honest_clients_are_farther(
    attackers: int, clients: int, quantile: float
) -> None:
    z = largest_z(attackers, clients)
    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(quantile)
    farther = (1 - quantile) * (clients - attackers)  # honest clients expected beyond the attackers
    assert attackers + farther == pytest.approx(clients // 2 + 1)  # a majority


def test_alie_is_within_the_spread() -> None:
    updates = known()
    rows = updates.honest.numpy()
    expected = rows.mean(axis=0) - 1.5 * rows.std(axis=0, ddof=1)
    np.testing.assert_allclose(Alie(z=1.5).sent(updates)[0].numpy(), expected)
    against = Alie(z=1.5, direction="against").sent(updates)[0].numpy()
    moved = rows.mean(axis=0) - 1.5 * np.sign(rows.mean(axis=0)) * rows.std(axis=0, ddof=1)
    np.testing.assert_allclose(against, moved)
    assert largest_z(2, 4) == 0.0  # half of them
    Alie().require(5, 11)
    with pytest.raises(UserError, match=r"with 6 of 11 .* majority alone.*; set attack\.alie\.z"):
        Alie().require(6, 11)
    Alie(z=1.0).require(6, 11)


@pytest.mark.parametrize("direction", ["deviation", "mean", "sign"])
def test_min_max_goes_as_far_as_honest_clients_are_apart(direction: str) -> None:
    updates = known()
    sent = built("min_max", direction=direction).sent(updates)[0]
    honest, mean = updates.honest, updates.mean

    def farthest(point: torch.Tensor) -> float:
        return max(float((point - row).norm()) for row in honest)

    apart = max(float((a - b).norm()) for a in honest for b in honest)
    assert farthest(sent) == pytest.approx(apart)
    assert farthest(mean + 1.01 * (sent - mean)) > apart
    towards = {"deviation": honest.std(dim=0), "mean": mean, "sign": mean.sign()}[direction]
    cosine = torch.nn.functional.cosine_similarity(sent - mean, -towards, dim=0)
    assert float(cosine) == pytest.approx(1.0)


def test_a_replaced_model_is_the_mean() -> None:
    updates = known(own=1)
    weights = torch.cat([updates.own_weights, updates.honest_weights])
    sent = ModelReplacement().sent(updates)
    mean = (weights[:, None] * torch.cat([sent, 0 * updates.honest])).sum(dim=0) / weights.sum()
    torch.testing.assert_close(mean, updates.own[0])
    torch.testing.assert_close(ModelReplacement(scale=8).sent(updates), 8 * updates.own)


@pytest.mark.parametrize(
    ("attackers", "expected"),
    [(2, CLIENTS[-2:]), (0.2, CLIENTS[-2:]), (0.3, CLIENTS[-3:]), (["c3", "c0"], ["c3", "c0"])],
)
def test_attackers_are_the_last_ones_or_have_names(
    attackers: object, expected: Sequence[str]
) -> None:
    assert built("ipm", attackers=attackers).names(CLIENTS) == tuple(expected)


@pytest.mark.parametrize(
    ("attackers", "message"),
    [
        (11, "makes 11 of 11 clients hostile; let there be at least one"),
        (0.05, "makes 0 of 11 clients hostile"),
        (["c3", "c11"], r"names c11, which takes no part \(did you mean 'c1.*; the clients are c0"),
        (-1, "attackers"),
        (1.5, "attackers"),
    ],
)
def test_impossible_attackers_are_refused(attackers: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        built("ipm", attackers=attackers).names(CLIENTS)


def test_min_max_of_equal_updates_is_one_of_them() -> None:
    updates = known()
    equal = Updates(
        updates.own,
        updates.honest[:1].repeat(9, 1),
        updates.own_weights,
        updates.honest_weights,
        updates.draws,
    )
    torch.testing.assert_close(MinMax().sent(equal)[0], equal.honest[0])
