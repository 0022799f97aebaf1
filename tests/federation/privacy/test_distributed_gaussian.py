"""Noise at the clients that adds up: what bounds an update, what hides it, mutants that do not."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.accounting.concentrated import spent
from hanse.federation.aggregators.mean import Mean
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.powersgd import PowerSGD
from hanse.federation.compression.rand_k import RandK
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.messages import Update
from hanse.federation.noise import os_noise, whole_steps
from hanse.federation.noise.discrete_gaussian import discrete_gaussian
from hanse.federation.noise.rotation import rotate_back
from hanse.federation.noise.whole_steps import Steps
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.privacy.client_dp import ClientDp
from hanse.federation.privacy.distributed_gaussian import PADDING, DistributedGaussian
from hanse.federation.secure_sums.grid import Grid
from hanse.federation.sums import summand, whole
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, layout, norm, subtract
from hanse.tensors.serialization import MessageError
from parts.plain_rules import Sums

CONTEXT = RoundContext(5, 1, rounds=3, clients=11)
RULE = SecAgg(threshold=8)  # of 11 silos 2 may collude: 6 shares of noise are sure
C, Z, SHARES = 0.5, 2.0, 6
SIZE = 16_384


def told(part: DistributedGaussian, rule: SecAgg = RULE) -> DistributedGaussian:
    return part.beside(rule)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def update(seed: int, length: float = 1.0, size: int = SIZE) -> Update:
    vector = torch.randn(size, generator=draw(seed))
    vector *= length / vector.norm()
    return Update({"b": vector[:100].reshape(10, 10), "a": vector[100:]}, {"loss": 1.0}, 7.0)


def encoded(part: DistributedGaussian, sent: Update, client: str = "c1") -> Update:
    return part.encode(sent, {}, {}, replace(CONTEXT, client=client))


def summed(part: DistributedGaussian, updates: Sequence[Update], rule: SecAgg = RULE) -> Tensors:
    """What the server makes of the sum of these updates' words, by the grid of secure sums."""
    grid = Grid(CONTEXT.clients, rule.bits, rule.clip, 7.0)
    summands = [summand(encoded(part, sent, f"c{place}"), ()) for place, sent in enumerate(updates)]
    total = grid.zeros(summands[0])
    for words in map(grid.encode, summands):
        for name, value in words.items():
            total[name] += value
    names = whole(summands[0])
    assert not grid.overflows(total, len(updates), names)
    sums, clipped = grid.decode(total, names)
    weight = float(sums.pop("#weight"))
    mean = part.decode(Update({n: t / weight for n, t in sums.items()}, {}, weight), {}, CONTEXT)
    clients = tuple(f"c{place}" for place in range(len(updates)))
    aggregate = part.finish(Aggregate(mean.tensors, {}, weight, clients), {}, CONTEXT)[0]
    assert clipped == 0 and weight == len(updates)
    return aggregate.tensors


def flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensors[name].reshape(-1).double() for name in sorted(tensors)])


def flaws(part: DistributedGaussian) -> set[str]:
    """What an honest figure of ε needs, and this part does not do."""
    found, context = set(), replace(CONTEXT, client="c1")
    steps = part._steps(SIZE, context)
    sums, quiet = [], replace_noise(part)
    for seed, length in enumerate((0.1, 0.5, 3.0, 1e6)):
        sent = encoded(part, update(seed, length))
        bare = flat(encoded(quiet, update(seed, length)).tensors)
        if sent.weight != 1 or sent.numbers:
            found.add("weights differ, or numbers leave")
        if not torch.equal(bare, bare.round()) or float(bare.norm()) ** 2 > steps.square:
            found.add("a rounded update is longer than Δ")
        sums.append(flat(sent.tensors) - bare)
    found |= {"a rounded update is longer than Δ"} if longest_rounding(part) > 1 else set()
    released = part.released({}, context)
    share = float(torch.cat(sums).std())
    effect = math.sqrt(whole_steps.largest_square(steps.clip, SIZE))
    if share * math.sqrt(released["shares"]) < 0.98 * released["noise_multiplier"] * effect:
        found.add("the noise of the shares is less than z·Δ")
    return found


def longest_rounding(part: DistributedGaussian) -> float:
    """‖x‖²/Δ² of the longest of many roundings, each up or down with the same probability."""
    assert part.clip is not None
    coarse, longest = part.beside(SecAgg(threshold=8, bits=16)), 0.0
    steps = coarse._steps(SIZE, CONTEXT)
    usual = steps.clip / math.sqrt(SIZE)  # a whole number
    larger = torch.rand(SIZE, generator=draw(0)) < 0.5 - 1 / 8 / usual
    target = usual - 0.5 + larger.double()
    for round in range(40):
        context = replace(CONTEXT, round=round)
        vector = rotate_back(target * steps.clip / target.norm(), SIZE, context)
        drawn = coarse._whole(vector * part.clip / steps.clip, steps, context)
        longest = max(longest, float(drawn.square().sum()) / steps.square)
    return longest


def replace_noise(part: DistributedGaussian) -> DistributedGaussian:
    """The same part with no draw of noise."""

    def none(size: int, steps: Steps, context: RoundContext) -> Tensor:
        return torch.zeros(size, dtype=torch.int64)

    quiet = copy(part)
    object.__setattr__(quiet, "_share", none)
    return quiet


class NoNoise(DistributedGaussian):
    def _share(self, size: int, steps: Steps, context: RoundContext) -> Tensor:
        return torch.zeros(size, dtype=torch.int64)


class NoiseOverN(DistributedGaussian):
    """Shares for all that are asked, though some may drop out or collude."""

    def _shares(self, context: RoundContext) -> int:
        return context.clients

    def released(self, state: Tensors, context: RoundContext) -> dict[str, float]:
        return {**super().released(state, context), "shares": float(SHARES)}


class HalfSensitivity(DistributedGaussian):
    def _share(self, size: int, steps: Steps, context: RoundContext) -> Tensor:
        return discrete_gaussian(size, steps.deviation // 2, context)


class NoClip(DistributedGaussian):
    def _whole(self, vector: Tensor, steps: Steps, context: RoundContext) -> Tensor:
        assert self.clip is not None
        scaled = vector * (steps.clip / self.clip)
        return (scaled + torch.rand(len(scaled), dtype=torch.float64)).floor().long()


class NoCondition(DistributedGaussian):
    def _whole(self, vector: Tensor, steps: Steps, context: RoundContext) -> Tensor:
        return super()._whole(vector, replace(steps, square=2**62), context)


class WeightsAsTheyCome(DistributedGaussian):
    linear: ClassVar[bool] = True

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(super().encode(update, memory, state, context), weight=update.weight)


def test_an_honest_mechanism() -> None:
    for rule in (RULE, SecAgg(threshold=8, bits=64), SecAgg(threshold=8, bits=16)):
        assert flaws(told(DistributedGaussian(clip=C, noise_multiplier=Z), rule)) == set()
    assert flaws(told(DistributedGaussian(clip=C, epsilon=8))) == set()


@pytest.mark.parametrize(
    ("mutant", "flaw"),
    [
        (NoNoise, "the noise of the shares is less than z·Δ"),
        (NoiseOverN, "the noise of the shares is less than z·Δ"),
        (HalfSensitivity, "the noise of the shares is less than z·Δ"),
        (NoClip, "a rounded update is longer than Δ"),
        (NoCondition, "a rounded update is longer than Δ"),
        (WeightsAsTheyCome, "weights differ, or numbers leave"),
    ],
)
def test_a_mutant_is_caught(mutant: type[DistributedGaussian], flaw: str) -> None:
    assert flaw in flaws(told(mutant(epsilon=None, clip=C, noise_multiplier=Z)))


@pytest.mark.parametrize("survivors", [11, 8])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_sum_is_the_mean_of_clipped_updates_with_the_stated_noise(
    survivors: int, bits: int
) -> None:
    rule = SecAgg(threshold=8, bits=bits)
    part = told(DistributedGaussian(epsilon=None, clip=C, noise_multiplier=Z), rule)
    sent = [update(seed, 0.3 + 0.1 * seed) for seed in range(survivors)]
    ours = flat(summed(part, sent, rule))
    limited = [flat(u.tensors) * min(1.0, C / norm(u.tensors)) for u in sent]
    error = ours - sum(limited, torch.zeros(SIZE).double()) / 11  # a fixed denominator
    # Noise of 6 shares is z·C, but for the rounding of updates, which Δ has; all silos add some.
    longer = part._steps(SIZE, CONTEXT)
    rounding = math.sqrt(longer.square) / longer.clip
    expected = Z * C * rounding * math.sqrt(survivors / SHARES) / 11
    assert float(error.std()) == pytest.approx(expected, rel=0.025)
    assert abs(float(error.mean())) < 5 * expected / math.sqrt(SIZE)


def test_without_noise_the_sum_is_the_mean() -> None:
    part = replace_noise(told(DistributedGaussian(epsilon=None, clip=9.0, noise_multiplier=0.0)))
    sent = [update(seed) for seed in range(9)]
    mean = sum((flat(u.tensors) for u in sent), torch.zeros(SIZE).double()) / 11
    torch.testing.assert_close(flat(summed(part, sent)), mean, atol=1e-5, rtol=0)


def test_shares_are_those_of_the_least_survivors_without_colluders() -> None:
    part = DistributedGaussian(epsilon=None, noise_multiplier=1.0)
    for rule, least, shares in (
        (RULE, 8, 6),
        (SecAgg(), 7, 5),
        (SecAgg(colluders=0.0), 6, 6),
        (SecAgg(colluders=0.6, dropouts=0.0), 9, 3),
    ):
        own = told(part, rule)
        assert own.least_updates(CONTEXT) == rule.plan(11).quorum == least
        assert own.released({}, CONTEXT)["shares"] == least - rule.plan(11).colluders == shares
        steps = own._steps(SIZE, CONTEXT)
        assert steps.deviation == math.ceil(math.sqrt(steps.square / shares) * (1 + 1e-12))
    many = replace(CONTEXT, clients=400)  # of a ring all but the planned drop-outs must survive
    own = told(part, SecAgg())
    assert (own.least_updates(many), own._shares(many)) == (360, 280)


def test_few_survivors_still_have_the_noise_that_is_accounted_for() -> None:
    """ε of the whole run is that of the fewest survivors, of whom two tell their noise."""
    part = told(DistributedGaussian(epsilon=4.0, clip=C))
    steps = part._steps(SIZE, CONTEXT)
    z = steps.deviation * math.sqrt(8 - 2) / math.sqrt(steps.square)
    record = part.account([part.released({}, CONTEXT)] * 3, CONTEXT)
    assert record.epsilon is not None and spent([z] * 3, 1e-5) <= record.epsilon <= 4.0
    assert record.epsilon == pytest.approx(4.0, rel=0.01)
    assert (record.unit, record.budget, record.clip, record.releases) == ("silo", 4.0, C, 3)
    [first, second, *_] = record.assumptions
    assert "at least 8 silos' updates" in first and "2 of them at most" in first
    assert "noise of 6 is counted" in first and "on its own word" in second
    assert part.account([], CONTEXT).epsilon == 0
    silent = told(DistributedGaussian(epsilon=None, noise_multiplier=0.0))
    assert silent.account([silent.released({}, CONTEXT)], CONTEXT).epsilon is None


def test_noise_is_the_systems() -> None:
    part, sent = told(DistributedGaussian()), update(1)
    first, again = (flat(encoded(part, sent).tensors) for _ in range(2))
    assert not torch.equal(first, again)
    quiet = replace_noise(part)  # roundings and rotation follow from the seed
    first, again = (flat(encoded(quiet, sent).tensors) for _ in range(2))
    assert torch.equal(first, again)


def test_sums_that_wrap_around_within_a_client_come_out_right() -> None:
    """Words are taken modulo 2^16: what leaves the range at one client comes back in the sum."""
    grid = Grid(3, 16, 1.0, 1.0)
    values = [40_000, -30_000, -9_000]
    total = grid.zeros({"x": torch.zeros(1, dtype=torch.int64)})
    for value in values:
        words = grid.encode({"x": torch.tensor([value]), "#weight": torch.tensor(1.0)})
        assert words["x"].dtype == np.uint16 and words["#clipped"] == 0
        total["x"] += words["x"]
    assert float(grid.decode({"x": total["x"], "#clipped": total["#clipped"]}, {"x"})[0]["x"]) == (
        sum(values)
    )
    assert not grid.overflows(total, 3, {"x"})
    total["x"][:] = grid.most_whole + 1
    assert grid.overflows(total, 3, {"x"})


@pytest.mark.parametrize("size", [1, 3, 100, 5000])
def test_layouts(size: int) -> None:
    part = told(DistributedGaussian())
    sent = Update({"b": torch.rand(size), "a": torch.zeros(0, 4), "c": torch.rand(2, 3).bfloat16()})
    forms = part.layout(layout(sent.tensors), part.init(layout(sent.tensors)))
    tensors = encoded(part, sent).tensors
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        n: (f.shape, f.dtype)  # type: ignore[union-attr]
        for n, f in forms.items()
    }
    assert {t.dtype for t in tensors.values()} == {torch.int64}


def test_contents_that_nothing_encodes_to() -> None:
    part = told(DistributedGaussian())
    tensors = encoded(part, update(1, size=5000)).tensors
    for wrong in (tensors[PADDING][1:], torch.zeros(0)):
        with pytest.raises(MessageError, match="other padding"):
            part.decode(Update({**tensors, PADDING: wrong}), {}, CONTEXT)
    assert subtract(part.decode(Update(tensors), {}, CONTEXT).tensors, update(1, size=5000).tensors)


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clip": None}, "without a bound on updates no noise hides one; set it"),
        ({"epsilon": None}, "neither epsilon nor noise_multiplier; set privacy.distributed_g"),
        ({"noise_multiplier": 0.0}, "is 0, which keeps no epsilon.* leave noise_m"),
    ],
)
def test_settings_that_promise_nothing(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DistributedGaussian(**settings)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((FedNova(), RULE), "FedNova uses the numbers that clients report"),
        ((FedAvg(), Mean()), "only sums over clients, and Mean sees .*sums, such as secagg, or"),
        ((FedAvg(), RULE, RandK()), "sends whole numbers.*RandK changes them; leave it out of"),
        ((FedAvg(), RULE, PowerSGD()), "sends whole numbers.*PowerSGD changes them"),
    ],
)
def test_parts_that_do_not_fit(parts: tuple[Any, ...], sentence: str) -> None:
    algorithm, rule, *codecs = parts
    upload = Pipeline("upload", tuple(codecs), (told(DistributedGaussian()),))
    with pytest.raises(UserError, match=sentence):
        check(algorithm, rule, Pipelines(upload))


def test_noise_at_the_server_beside_secure_sums_is_refused_with_this_way_out() -> None:
    upload = Pipeline("upload", (), (ClientDp(),))
    with pytest.raises(UserError, match="choose privacy: distributed_gaussian, whose noise adds"):
        check(FedAvg(), RULE, Pipelines(upload))


def test_runs_that_it_cannot_serve() -> None:
    told(DistributedGaussian()).require(CONTEXT)
    few = DistributedGaussian(epsilon=2, noise_multiplier=2.5)
    with pytest.raises(
        UserError, match=r"epsilon of 2 in 3 rounds; .*rounds=1, or raise epsilon, o"
    ):
        told(few).require(CONTEXT)
    with pytest.raises(UserError, match=r"cannot be kept in 3 rounds"):
        told(DistributedGaussian(epsilon=1e-7, delta=1e-12)).require(CONTEXT)
    with pytest.raises(
        UserError, match=r"Sums adds no whole numbers.*choose the aggregator secagg"
    ):
        DistributedGaussian().beside(Sums()).require(CONTEXT)
    coarse = told(DistributedGaussian(epsilon=0.5), SecAgg(bits=16))
    with pytest.raises(
        UserError, match=r"too few whole steps .*; raise aggregator\.secagg\.bits, "
    ):
        coarse.remarks(CONTEXT, 11, 10**7)
    with pytest.raises(UserError, match="this client's update has numbers that are not finite"):
        encoded(told(DistributedGaussian()), Update({"a": torch.tensor([math.nan])}))
    with pytest.raises(UserError, match="whole numbers in a, which distributed_gaussian cannot"):
        DistributedGaussian().init({"a": torch.zeros(3, dtype=torch.int64)})


def test_remarks_on_few_silos_and_a_large_delta() -> None:
    part = DistributedGaussian(epsilon=None, noise_multiplier=2.0, delta=0.01)
    thousand = replace(CONTEXT, clients=1000)
    assert told(replace(part, delta=1e-5), SecAgg()).remarks(thousand, 1000, 2500) == []
    [delta] = told(part, SecAgg()).remarks(thousand, 1000, 2500)
    assert "delta is 0.01, and one of 1000 silos could be given away" in delta
    *_, noisy = told(part).remarks(CONTEXT, 11, 74_498)
    ratio = 2.0 * math.sqrt(74_498 / SHARES / 11)
    assert f"about {ratio:.3g} times as long" in noisy and "any 6 silos" in noisy


def test_the_seeds_bytes_of_a_test_make_it_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    part, sent = told(DistributedGaussian()), update(1, size=200)
    results = []
    for _ in range(2):
        generator = np.random.default_rng(0)
        monkeypatch.setattr(
            os_noise, "random_bytes", lambda count, context, g=generator: g.bytes(count)
        )
        results.append(flat(encoded(part, sent).tensors))
    assert torch.equal(*results)
