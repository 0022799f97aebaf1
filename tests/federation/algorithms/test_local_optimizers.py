"""Momentum, schedules and clipping at the clients, and the optimizers that are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from algorithms.quadratic import Quadratic, optimum
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.randomness import RoundContext
from toys import federate

SHARES = (0.2, 0.3, 0.5)
MOMENTUM = 0.9
CLIENTS = {
    "many": Quadratic(curve=(1.0, 3.0), centre=(2.0, -2.0), steps=20, examples=4),
    "few": Quadratic(curve=(8.0, 0.5), centre=(-2.0, 4.0), steps=2, examples=6),
    "some": Quadratic(curve=(2.0, 6.0), centre=(1.0, 1.0), steps=5, examples=10),
}


def ended(clients: dict[str, Quadratic], folder: Path, rounds: int) -> Tensor:
    """Where FedNova ends."""
    outcome = federate(FedNova(), clients, folder, CLIENTS["many"], rounds=rounds)
    return outcome.server_state.algorithm_state["model"]["w"].double()


def by_hand(own: Quadratic, rates: list[float]) -> tuple[Tensor, float]:
    """Where SGD with momentum goes from zero, and ‖a‖₁ = Σᵢ Σⱼ≥ᵢ ηⱼρʲ⁻ⁱ."""
    y, velocity = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for rate in rates:
        velocity = MOMENTUM * velocity + torch.tensor(own.curve) * (y - torch.tensor(own.centre))
        y = y - rate * velocity
    total = sum(
        rates[j] * MOMENTUM ** (j - i) for i in range(len(rates)) for j in range(i, len(rates))
    )
    return y, total


def test_fednova_with_momentum_ends_near_the_optimum(tmp_path: Path) -> None:
    """Divided by steps alone, it ends 0.8 away."""
    clients = {
        n: replace(own, rate=0.001, more={"momentum": MOMENTUM}) for n, own in CLIENTS.items()
    }
    found = ended(clients, tmp_path / "run", 100)
    assert (found - optimum(clients, SHARES)).norm() < 0.05


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_fednova_is_normalized_by_rates_and_momentum(warmup: float, tmp_path: Path) -> None:
    """One round by hand, with unequal steps, on a linear schedule of one round."""
    more = {"momentum": MOMENTUM, "lr_scheduler_type": "linear", "warmup_ratio": warmup}
    clients = {name: replace(own, more=more) for name, own in CLIENTS.items()}
    found = ended(clients, tmp_path / "run", 1)
    ends, totals = [], []
    for own in CLIENTS.values():
        done = [step / own.steps for step in range(own.steps)]
        rates = [
            own.rate * (at / warmup if at < warmup else 1 - (at - warmup) / (1 - warmup))
            for at in done
        ]
        y, total = by_hand(own, rates)
        ends.append(y)
        totals.append(total)
    mean = sum(share * total for share, total in zip(SHARES, totals, strict=True))
    parts = zip(SHARES, ends, totals, strict=True)
    expected = mean * sum(share * y / total for share, y, total in parts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_weight_of_gradients_is_the_papers(steps: int) -> None:
    """[τ − ρ(1 − ρ^τ)/(1 − ρ)]/(1 − ρ) times the rate; τ times the rate without momentum."""
    own = Quadratic(curve=(1.0,), centre=(1.0,), steps=steps, rate=0.01)
    rho = MOMENTUM
    wanted = 0.01 * (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
    heavy = replace(own, more={"momentum": rho})(RoundContext(0, 1, "c"), {}).fit()
    assert heavy.sum_a == pytest.approx(wanted, rel=1e-12)
    assert own(RoundContext(0, 1, "c"), {}).fit().sum_a == pytest.approx(0.01 * steps, rel=1e-12)
    for more in ({"optim": "adamw"}, {"momentum": rho, "optimizer_state": "keep"}):
        assert replace(own, more=more)(RoundContext(0, 1, "c"), {}).fit().sum_a is None


def test_a_warm_up_that_moves_nothing_is_no_error(tmp_path: Path) -> None:
    more = {"warmup_ratio": 0.5}
    clients = {n: replace(own, steps=1, more=more, rounds=4) for n, own in CLIENTS.items()}
    assert not ended(clients, tmp_path / "one", 1).any()
    assert ended(clients, tmp_path / "two", 2).any()


def test_scaffolds_variate_is_the_gradient_though_steps_are_clipped(tmp_path: Path) -> None:
    """Tiny steps from zero: each client's cₖ is its gradient there, far longer than the limit."""
    clients = {
        name: replace(own, steps=5, rate=1e-6, more={"max_grad_norm": 0.1})
        for name, own in CLIENTS.items()
    }
    outcome = federate(Scaffold(), clients, tmp_path / "run", CLIENTS["many"], rounds=1)
    gradients = [-torch.tensor(own.curve) * torch.tensor(own.centre) for own in CLIENTS.values()]
    mean = torch.stack(gradients).mean(dim=0)
    found = outcome.server_state.algorithm_state["control"]["w"]
    torch.testing.assert_close(found, mean, atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algorithm=fednova"], "FedNova is .* by SGD with momentum or SGD without momentum only"),
        (["algorithm=feddyn"], r"FedDyn is .*, but train has AdamW; set train\.optim=sgd, with"),
        (["algorithm=scaffold"], r"train has AdamW; set train\.optim=sgd and train\.momentum=0"),
        (
            ["algorithm=scaffold", "train.optim=sgd", "train.momentum=0.9"],
            "but train has SGD with momentum; set",
        ),
        (
            ["algorithm=fednova", "train.optim=sgd", "clients.silo-2.train.optim=adamw"],
            r"clients\.silo-2\.train has AdamW; set clients\.silo-2\.train\.optim=sgd",
        ),
        (
            ["algorithm=feddyn", "train.optim=sgd", "train.weight_decay=0.1"],
            r"without their weight_decay; set train\.max_grad_norm=0 or train\.weight_decay=0",
        ),
        (["train.momentum=0.9"], "momentum is 0.9, but adamw has none to set; set train.momentum"),
    ],
)
def test_optimizers_that_an_algorithm_is_not_defined_for_are_refused(
    words: list[str], said: str, experiment_file: Path
) -> None:
    with pytest.raises(UserError, match=said):
        simulate(load(experiment_file, words))
