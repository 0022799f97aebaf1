"""Client-level privacy: what bounds an update, what hides it, and mutants that do not."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.flora import FLoRA
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.powersgd import PowerSGD
from hanse.federation.compression.top_k import TopK
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.messages import Update
from hanse.federation.noise import os_noise
from hanse.federation.noise.clipping import clipped
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.privacy.client_dp import BELOW, CLIP, ClientDp
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, norm, scale
from parts.plain_rules import Sums

CONTEXT = RoundContext(0, 1, rounds=3, clients=5)
C, Z, SIZE = 0.5, 3.0, 10**6


def mean_of(updates: Sequence[Update]) -> Aggregate:
    total = sum(update.weight for update in updates)
    tensors = {
        name: sum(u.tensors[name] * u.weight for u in updates) / total  # type: ignore[misc]
        for name in updates[0].tensors
    }
    clients = tuple(f"c{place}" for place in range(len(updates)))
    return Aggregate(tensors, {}, total, clients)


def finished(
    part: Mechanism, updates: Sequence[Update], context: RoundContext = CONTEXT
) -> Tensors:
    state = part.init({})
    decoded = [part.decode(update, state, context) for update in updates]
    return part.finish(mean_of(decoded), state, context)[0].tensors


def flaws(part: ClientDp) -> set[str]:
    """What an honest figure of ε needs, and this part does not do."""
    found, state = set(), part.init({})
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        update = Update(
            {"a": torch.linspace(-9, 9, 999).to(dtype), "b": torch.ones(3, 3, 3)}, {}, 7
        )
        if norm(part.encode(update, {}, state, CONTEXT).tensors) > C:
            found.add("the client does not clip")
        decoded = part.decode(update, state, CONTEXT)
        if norm(decoded.tensors) > C:
            found.add("the server does not clip")
        if decoded.weight != 1 or part.encode(update, {}, state, CONTEXT).weight != 1:
            found.add("weights differ")
    released = part.released(state, CONTEXT)
    deviation = released["noise_multiplier"] * released["clip"] / CONTEXT.clients
    drawn = finished(part, [Update({"w": torch.zeros(SIZE)})] * 3)["w"].double()
    if not math.isclose(float(drawn.std()), deviation, rel_tol=0.02):
        found.add("the noise is not z·C/n")
    one, none = (Update({"w": torch.full((4,), length)}) for length in (100.0, 0.0))
    effect = finished(replace(part, noise_multiplier=0.0, epsilon=None), [one, none, none])
    if norm(effect) > 1.0001 * C / CONTEXT.clients:
        found.add("one silo changes the result by more than C/n")
    return found


class NoNoise(ClientDp):
    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        share = aggregate.weight / context.clients
        return replace(aggregate, tensors=scale(aggregate.tensors, share)), state


class NoiseOverN(ClientDp):
    def _update_noise(self, context: RoundContext) -> float:
        return super()._update_noise(context) / context.clients


class HalfSensitivity(ClientDp):
    def _update_noise(self, context: RoundContext) -> float:
        return super()._update_noise(context) / 2


class NoClip(ClientDp):
    def _limited(self, update: Update, clip: float, below: float) -> Update:
        return replace(update, weight=1.0)


class ClipAtTheClientOnly(ClientDp):
    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, weight=1.0)


class ClipAtTheServerOnly(ClientDp):
    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, weight=1.0)


class WeightsAsTheyCome(ClientDp):
    def _limited(self, update: Update, clip: float, below: float) -> Update:
        return replace(super()._limited(update, clip, below), weight=update.weight)


class MovingDenominator(ClientDp):
    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        return super().finish(aggregate, state, replace(context, clients=len(aggregate.clients)))


def test_an_honest_mechanism() -> None:
    assert flaws(ClientDp(clip=C, noise_multiplier=Z)) == set()
    assert flaws(ClientDp(clip=C, noise_multiplier=Z, epsilon=8)) == set()


@pytest.mark.parametrize(
    ("mutant", "flaw"),
    [
        (NoNoise, "the noise is not z·C/n"),
        (NoiseOverN, "the noise is not z·C/n"),
        (HalfSensitivity, "the noise is not z·C/n"),
        (NoClip, "the client does not clip"),
        (ClipAtTheClientOnly, "the server does not clip"),
        (ClipAtTheServerOnly, "the client does not clip"),
        (WeightsAsTheyCome, "weights differ"),
        (MovingDenominator, "one silo changes the result by more than C/n"),
    ],
)
def test_a_mutant_is_caught(mutant: type[ClientDp], flaw: str) -> None:
    assert flaw in flaws(mutant(clip=C, noise_multiplier=Z))


def test_noise_is_the_systems() -> None:
    part, updates = ClientDp(noise_multiplier=1.0), [Update({"w": torch.zeros(100)})]
    first, again = (finished(part, updates)["w"] for _ in range(2))
    assert not torch.equal(first, again)


def test_gaussian_noise() -> None:
    drawn = os_noise.gaussian(torch.Size([1000, 1001]), CONTEXT)
    assert drawn.dtype == torch.float64 and drawn.shape == (1000, 1001)
    assert abs(float(drawn.mean())) < 0.005 and abs(float(drawn.std()) - 1) < 0.005
    for limit, share in ((1.0, 0.6827), (2.0, 0.9545), (4.0, 0.99994)):
        assert float((drawn.abs() < limit).double().mean()) == pytest.approx(share, abs=0.003)
    halves = drawn.reshape(-1)[: 2 * 500_500].reshape(2, -1)
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 0.01  # both halves of Box and Muller's pairs
    assert os_noise.gaussian(torch.Size([0]), CONTEXT).numel() == 0
    assert os_noise.gaussian(torch.Size([]), CONTEXT).shape == ()


def test_bytes_that_are_all_alike_make_no_infinite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr(os_noise, "random_bytes", lambda count, context, b=byte: b * count)
        assert bool(torch.isfinite(os_noise.gaussian(torch.Size([7]), CONTEXT)).all())


def test_rounding_of_the_mean_is_hidden_too() -> None:
    """In bfloat16 a mean of 1,000 updates moves by more than one update when it is rounded."""
    part, context = ClientDp(clip=1.0, noise_multiplier=1.0), replace(CONTEXT, clients=1000)
    mean = Aggregate({"w": torch.zeros(10**5, dtype=torch.bfloat16)}, {}, 1000.0, ("c",) * 1000)
    drawn = part.finish(mean, {}, context)[0].tensors["w"].double()
    assert float(drawn.std()) == pytest.approx((1 + 2000 * 2**-8) / 1000, rel=0.02)


# ---- the clip norm that follows a quantile


def adaptive(**settings: Any) -> ClientDp:
    return ClientDp(
        **{"clip": 0.1, "noise_multiplier": 0.4, "quantile": 0.5, "epsilon": None} | settings
    )


def silent(shape: torch.Size, context: RoundContext) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def test_the_clip_norm_follows_the_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_noise, "gaussian", silent)
    part, norms = adaptive(), (0.2, 1.0, 2.0, 3.0, 9.0)
    state = part.init({})
    for _ in range(150):
        sent = [
            part.encode(Update({"w": torch.tensor([length])}, {"loss": 1.0}), {}, state, CONTEXT)
            for length in norms
        ]
        decoded = [part.decode(update, state, CONTEXT) for update in sent]
        clip = float(state[CLIP])
        below = [length <= clip for length in norms]
        assert [update.numbers for update in decoded] == [{BELOW: float(b)} for b in below]
        aggregate = replace(mean_of(decoded), numbers={BELOW: sum(below) / 5})
        after, state = part.finish(aggregate, state, CONTEXT)
        assert after.numbers == {}
        expected = clip * math.exp(-0.2 * (sum(below) / 5 - 0.5))
        assert float(state[CLIP]) == pytest.approx(expected, rel=1e-12)
    assert 1.6 < float(state[CLIP]) < 2.4


def test_missing_clients_count_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Σ (bₖ − ½) of those that answered: nobody's absence moves it by more than a half."""
    monkeypatch.setattr(os_noise, "gaussian", silent)
    part = adaptive()
    for answered in (1, 3, 5):
        aggregate = Aggregate(
            {"w": torch.zeros(1)}, {BELOW: 1.0}, float(answered), ("c",) * answered
        )
        clip = float(part.finish(aggregate, part.init({}), CONTEXT)[1][CLIP])
        share = 0.5 + answered / 2 / 5
        assert clip == pytest.approx(0.1 * math.exp(-0.2 * (share - 0.5)), rel=1e-12)


def test_updates_and_counts_share_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theorem 1 of 1905.03871: z⁻² = z_Δ⁻² + (2σ_b)⁻²."""
    part, zeros = adaptive(), Aggregate({"w": torch.zeros(SIZE)}, {BELOW: 0.5}, 5.0, ("c",) * 5)
    tensors = part.finish(zeros, part.init({}), CONTEXT)[0].tensors
    ours = float(tensors["w"].double().std()) * 5 / 0.1
    assert pytest.approx(ours**-2 + (2 * 0.05 * 5) ** -2, rel=0.05) == 1 / 0.4**2
    assert part.released(part.init({}), CONTEXT)["noise_multiplier"] == 0.4
    draws = [
        math.log(
            float(part.finish(replace(zeros, tensors={}), part.init({}), CONTEXT)[1][CLIP]) / 0.1
        )
        for _ in range(4000)
    ]
    assert float(torch.tensor(draws).std()) / 0.2 == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("sent", [math.inf, -3.0, 1e30, 0.5])
def test_a_vote_is_one_or_zero_whatever_is_sent(sent: float) -> None:
    update = Update({"w": torch.zeros(1)}, {BELOW: sent, "loss": 9.0})
    decoded = adaptive().decode(update, adaptive().init({}), CONTEXT)
    assert decoded.numbers == {BELOW: float(sent > 0)}


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epsilon": 8.0, "clip": None}, "without a bound on updates no noise hides one; set it"),
        ({"epsilon": None}, "neither epsilon nor noise_multiplier; set privacy.client_dp.epsilon"),
        ({"epsilon": 8.0, "noise_multiplier": 0.0}, "is 0, which keeps no epsilon.* leave noise_m"),
        (
            {"count_noise": 0.1},
            "count_noise does nothing without .*such as 0.5, or leave",
        ),
    ],
)
def test_settings_that_promise_nothing(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ClientDp(**settings)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((FedNova(), Mean()), "FedNova uses the numbers that clients report"),
        ((FLoRA(), Mean()), "takes change, but FLoRA sends factors"),
        ((FedAvg(), Sums()), "Sums sees only sums"),
        ((FedAvg(), Mean(), PowerSGD()), "PowerSGD learns from the mean before there is noise"),
    ],
)
def test_parts_that_use_what_is_not_protected(parts: tuple[Any, ...], sentence: str) -> None:
    algorithm, rule, *codecs = parts
    upload = Pipeline("upload", tuple(codecs), (ClientDp(noise_multiplier=1.0),))
    with pytest.raises(UserError, match=sentence):
        check(algorithm, rule, Pipelines(upload))


@pytest.mark.extras
def test_runs_that_it_cannot_serve() -> None:
    pytest.importorskip("dp_accounting")
    ClientDp(epsilon=8).require(CONTEXT)
    with pytest.raises(
        UserError, match=r"epsilon of 2 in 3 rounds; .*rounds=1, or raise epsilon, o"
    ):
        ClientDp(epsilon=2, noise_multiplier=2.2).require(CONTEXT)
    with pytest.raises(UserError, match=r"cannot be kept in 3 rounds"):
        ClientDp(epsilon=1e-7, delta=1e-12).require(CONTEXT)
    with pytest.raises(UserError, match=r"count_noise is 0\.05, .* must be more than 0\.3; raise"):
        adaptive(noise_multiplier=3.0).require(CONTEXT)


def test_remarks_on_few_silos_and_a_large_delta() -> None:
    part, context = ClientDp(noise_multiplier=2.0, delta=0.01), replace(CONTEXT, clients=100)
    assert part.remarks(context, 99, 2500) == []
    [delta] = part.remarks(context, 100, 2500)
    assert "delta is 0.01, and one of 100 silos could be given away" in delta
    [noisy] = part.remarks(replace(context, clients=10), 10, 74_498)
    assert "about 54.6 times as long" in noisy and "√74,498" in noisy


@pytest.mark.parametrize("sent", [math.nan, math.inf, -1.0, 0.0])
def test_a_clip_norm_that_no_honest_server_sends(sent: float) -> None:
    state, update = {CLIP: torch.tensor(sent)}, Update({"w": torch.ones(3)})
    for broken in (state, {}, {CLIP: torch.ones(2)}):
        with pytest.raises(UserError, match="no clip norm that is a positive number"):
            adaptive().encode(update, {}, broken, CONTEXT)


@pytest.mark.parametrize("clip", [0.0, 1e-12, 1e-8, 3e-7])
def test_clipping_ends_where_numbers_are_too_coarse(clip: float) -> None:
    """In float16 the least number is 6e-8."""
    for values in (torch.rand(1000), torch.linspace(-1, 1, 7), torch.ones(100)):
        assert norm(clipped({"w": values.half()}, clip)) <= clip


def test_error_feedback_would_send_more_than_the_clip_norm() -> None:
    upload = Pipeline("upload", (TopK(share=0.1),), (ClientDp(),), error_feedback=True)
    with pytest.raises(UserError, match=r"ClientDp limits an update before .*feedback: false"):
        check(FedAvg(), Mean(), Pipelines(upload))
    check(FedAvg(), Mean(), Pipelines(replace(upload, error_feedback=False)))
