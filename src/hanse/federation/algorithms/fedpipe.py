"""FedPipe (Fang et al. 2024, 2404.06448): each silo trains matrices and ranks of its own plan."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hanse.federation.algorithms.flexlora import FlexLoRA, trained_products
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import WEIGHED, Difference
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.trained_tensors import SHARE
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.speed.link_rounds import SAMPLE, LinkRound, link_round, sample
from hanse.federation.speed.pace import Pace
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import A, B, Factors, refuse_other_than_lora
from hanse.tensors.named import Layout, RunningMean, Tensors, drop, layout, strip_prefix

log = logging.getLogger(__name__)

Seconds = Annotated[float, Field(gt=0, le=1e9)]
PACE = "pace"  # of the state: the numbers of each client's, by its name
SECONDS, STEPS = "seconds.", "steps."  # of an aggregate, before the names of clients
SCORES = "scores"  # (matrices,), in the order of the matrices' names
SCORE = "score."  # of an aggregate, before the name of a matrix
BETA = 0.85  # β₁ and β₂ of AdaLoRA


@dataclass(frozen=True)
class FedPipe(FlexLoRA):
    """Wₗ ← Σ pₖsₖBₖₗAₖₗ over the silos k that train matrix l, whose shares pₖ there sum to 1.

    A silo sends the factors of its own matrices alone, and gets the best approximation of each by
    its rank there. Matrices without any trainer in a round stay as they are. The silos' matrices
    and ranks are those of `clients.<name>.adapter`, as `hanse plan` writes them. Reconstruction:
    the paper has no published code.

    probe: find out which matrices matter instead. Each silo trains, and sends one score of each of
        its matrices in place of factors; the model stays as it is. A matrix has the mean over those
        who train it. `hanse plan` begins with such a round.
        Rounds after the first train nothing: they time the silos' links (`link_rounds`), by random
        numbers as large as the adapter.
    expected_seconds: of a round's training at clients, as a plan has them. The steps of one that
        takes longer are reduced, so that no round takes longer than the largest of these (`pace`).
        As its steps then follow measured seconds, no two runs are quite the same.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    resets_optimizer: ClassVar[bool] = True  # each round's decomposition rotates the factors
    clients_may_differ: ClassVar[Difference] = "layout"
    server_settings: ClassVar[tuple[str, ...]] = ("expected_seconds",)

    probe: bool = False
    expected_seconds: Mapping[str, Seconds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.probe and self.expected_seconds:
            raise ValueError(
                "fedpipe has both probe and expected_seconds, and a probe follows no plan; leave "
                "one of them out."
            )

    @property
    def keeps_model_by(self) -> str:
        return "probe" if self.probe else ""

    @property
    def later_rounds(self) -> str:
        large = "train nothing, and time the links by messages as large as the adapter"
        return large if self.probe else ""

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        refuse_other_than_lora(model, type(self).__name__)
        products = trained_products(model, server.learner.scaling)
        short = {name: low_rank.shortened(factors)[0] for name, factors in products.items()}
        return {"model": model, "product": low_rank.tensors(short)}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        cut = _cut(state["product"], _ranks(profile, state), _scaling(profile))
        share = _pace(state, profile.name).share
        numbers = {SHARE: share} if share < 1 else {}
        tensors = {**cut, **low_rank.non_factor_tensors(state["model"])}
        if kind := self._times_links(context):
            size = _size(_resized(profile, state))
            tensors |= sample(kind.down, size, replace(context, client=""))
        return Instruction(tensors, numbers)

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        sized = _resized(profile, state)
        if kind := self._times_links(context):
            return {SAMPLE: torch.empty(_size(sized) if kind.up else 1, device="meta")}
        if self.probe:
            return {SCORES: torch.empty(len(sized), device="meta")}
        other = low_rank.non_factor_tensors(layout(state["model"]))
        return {**low_rank.tensors(sized), **other}

    def train(self, instruction: Instruction, client: Client) -> Update:
        if not self.probe:
            return super().train(instruction, client)
        if kind := self._times_links(client.context):
            size = _size(low_rank.layers(client.learner.initial()))
            return Update(sample(kind.up, size, client.context), {}, client.profile.examples)
        client.learner.load(self.personalized(instruction, client))
        importance = Importance()
        result = client.learner.fit(importance.note)
        return Update({SCORES: importance.scores()}, result.numbers(), client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        tensors = drop(instruction.tensors, {SAMPLE})
        return super().personalized(replace(instruction, tensors=tensors), client)

    def _times_links(self, context: RoundContext) -> LinkRound | None:
        """The messages of a round that times links; None for one that trains."""
        return link_round(context.round) if self.probe else None

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        clients, other = tuple(profile.name for profile, _ in updates), RunningMean()
        if self.probe:
            weight = sum(update.weight for _, update in updates)
            return Aggregate(_mean_scores(updates), {}, weight, clients)
        for _, update in updates:
            other.add(low_rank.non_factor_tensors(update.tensors), update.weight)
        means = low_rank.tensors(_trained_means(updates))
        measured = dict(self._measured(updates))
        return Aggregate({**means, **other.value()}, measured, other.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        if self.probe:
            found = {SCORES: {SCORES: scores(combined, state["model"])}}
            return {**state, **(found if combined.tensors else {})}  # none when it times links
        state = {**state, **self._paced(state, combined, server)}
        other = low_rank.non_factor_tensors(combined.tensors)
        product = {**state["product"], **drop(combined.tensors, other)}
        before = low_rank.layers(state["model"])
        ranks = {name: factors.rank for name, factors in before.items()}
        cut = low_rank.layers(_cut(product, ranks, server.learner.scaling))
        fitted = {name: low_rank.padded(f, ranks[name]) for name, f in cut.items()}
        model = {**low_rank.tensors({**before, **fitted}), **other}
        model = {name: model[name] for name in state["model"]}
        return {**state, "model": model, "product": product}

    def _measured(
        self, updates: Sequence[tuple[ClientProfile, Update]]
    ) -> Iterator[tuple[str, float]]:
        """The seconds and steps that clients with expected seconds report."""
        for name, numbers in ((profile.name, update.numbers) for profile, update in updates):
            if name in self.expected_seconds and numbers.get("seconds", 0.0) > 0:
                yield SECONDS + name, numbers["seconds"]
                yield STEPS + name, max(0.0, numbers.get("steps", 0.0))

    def _paced(self, state: State, combined: Aggregate, server: Server) -> State:
        """The paces after a round; a line says which of them has changed."""
        seconds = strip_prefix(combined.numbers, SECONDS)
        paces, bound = dict(state.get(PACE, {})), max(self.expected_seconds.values(), default=0.0)
        for name, measured in seconds.items():
            before, expected = _pace(state, name), self.expected_seconds[name]
            after = before.after(measured, expected, bound, combined.numbers[STEPS + name])
            paces[name] = torch.tensor(after.numbers(), dtype=torch.float64)
            if after.slower != before.slower:
                log.warning("%s", after.change(before, name, expected, server.context.round))
        asked = [name for name in combined.clients if name in self.expected_seconds]
        if silent := [name for name in asked if name not in paces]:
            text = "%s reported no seconds in round %d: without them a plan is not adjusted to it"
            log.warning(text, ", ".join(silent)[:200], server.context.round)
            unknown = torch.tensor(Pace().numbers(), dtype=torch.float64)
            paces |= dict.fromkeys(silent, unknown)  # so that it is said once
        return {PACE: paces} if paces else {}


class Importance:
    """The smoothed sensitivity × uncertainty of LoRA's matrices (AdaLoRA, 2303.10512, eq. 8 to 11).

    For each number w of A and B, with I = |w·∂L/∂w| of a step:

        Ī ← β₁Ī + (1 - β₁)I,   U ← β₂U + (1 - β₂)|I - Ī|,   s = Ī·U

    A pair of a column of B and a row of A has the mean of s over each of them, added; a matrix has
    the mean over its pairs. Ī and U begin at 0. Steps at which a matrix has B = 0 do not count
    there: A has no gradient then. Scores of one training compare, since all decay alike.
    """

    def __init__(self, beta_1: float = BETA, beta_2: float = BETA) -> None:
        self._betas = beta_1, beta_2
        self._smoothed: dict[str, tuple[Tensor, Tensor]] = {}  # Ī and U, by a tensor's name
        self._matrices: list[str] = []

    def note(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Count one step, as a penalty of 0, which is asked when all gradients are there."""
        layers = low_rank.layers(tensors)
        self._matrices = sorted(layers)
        for name, factors in layers.items():
            if bool(factors.up.any()):
                self._count(name + A, factors.down)
                self._count(name + B, factors.up)
        return 0.0 * next(iter(tensors.values())).sum()

    @torch.no_grad()
    def _count(self, name: str, weights: Tensor) -> None:
        assert weights.grad is not None  # it is trained
        beta_1, beta_2 = self._betas
        now = (weights * weights.grad).abs()
        zero = torch.zeros_like(now)
        sensitivity, uncertainty = self._smoothed.get(name, (zero, zero))
        sensitivity = beta_1 * sensitivity + (1 - beta_1) * now
        uncertainty = beta_2 * uncertainty + (1 - beta_2) * (now - sensitivity).abs()
        self._smoothed[name] = sensitivity, uncertainty

    def scores(self) -> Tensor:
        """(matrices,) in the order of their names; 0 for a matrix whose B has stayed 0."""
        return torch.stack([self._score(n + A) + self._score(n + B) for n in self._matrices]).cpu()

    def _score(self, name: str) -> Tensor:
        """The mean of s over a factor, which is the mean over its pairs' means."""
        if name not in self._smoothed:
            return torch.zeros(())
        sensitivity, uncertainty = self._smoothed[name]
        return (sensitivity * uncertainty).mean()


def matrices(model: Tensors) -> list[str]:
    """The names of an adapter's matrices, in the order of scores."""
    return sorted(low_rank.layers(model))


def scores(combined: Aggregate, model: Tensors) -> Tensor:
    """(matrices,) The mean score of each matrix; 0 for one that no client has."""
    none = torch.zeros(())
    return torch.stack([combined.tensors.get(SCORE + name, none) for name in matrices(model)])


def _mean_scores(updates: Sequence[tuple[ClientProfile, Update]]) -> dict[str, Tensor]:
    """The mean score of each matrix over those who have it; empty if they time links."""
    means: dict[str, RunningMean] = {}
    for profile, update in updates:
        if SCORES in update.tensors:
            own = matrices(profile.layout or {})  # a client declares the layout of its adapter
            for name, score in zip(own, update.tensors[SCORES], strict=True):
                means.setdefault(SCORE + name, RunningMean()).add({name: score}, update.weight)
    return {key: mean.value()[key.removeprefix(SCORE)] for key, mean in means.items()}


def _trained_means(updates: Sequence[tuple[ClientProfile, Update]]) -> dict[str, Factors]:
    """The mean product of each matrix over those who train it, of the lowest exact rank."""
    parts: dict[str, list[tuple[float, Factors]]] = {}
    for profile, update in updates:
        for name, factors in low_rank.layers(update.tensors).items():
            scaled = low_rank.scaled(factors, _scaling(profile))
            parts.setdefault(name, []).append((update.weight, scaled))
    means = {}
    for name, weighted in parts.items():
        total = sum(weight for weight, _ in weighted)
        shares = [(weight / total, factors) for weight, factors in weighted]
        means[name] = low_rank.shortened(low_rank.stacked(shares))[0]
    return means


def _pace(state: State, name: str) -> Pace:
    """A client's pace so far."""
    numbers = state.get(PACE, {}).get(name)
    return Pace() if numbers is None else Pace.of(numbers.tolist())


def _ranks(profile: ClientProfile, state: State) -> dict[str, int]:
    """The rank of each matrix that a client trains; without a layout it is one for all."""
    if profile.layout is None:
        return dict.fromkeys(low_rank.layers(state["model"]), int(profile.numbers["rank"]))
    return {name: factors.rank for name, factors in low_rank.layers(profile.layout).items()}


def _resized(profile: ClientProfile, state: State) -> dict[str, Factors]:
    """The factors that a client trains, by its ranks."""
    layers = low_rank.layers(layout(state["model"]))
    return {n: low_rank.resized(layers[n], rank) for n, rank in _ranks(profile, state).items()}


def _size(factors: Mapping[str, Factors]) -> int:
    """The numbers in factors."""
    return sum(tensor.numel() for tensor in low_rank.tensors(factors).values())


def _scaling(profile: ClientProfile) -> float:
    """A client's s = α/r."""
    return profile.numbers.get("scaling", 1.0)


def _cut(product: Tensors, ranks: Mapping[str, int], scaling: float) -> Tensors:
    """The best factors of these matrices by their ranks, divided by the receiver's scaling."""
    layers = low_rank.layers(product)
    firsts = {n: low_rank.first(layers[n], rank) for n, rank in ranks.items() if n in layers}
    return low_rank.tensors({n: low_rank.scaled(f, 1 / scaling) for n, f in firsts.items()})
