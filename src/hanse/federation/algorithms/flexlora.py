"""FlexLoRA (Bai et al. 2024, 2402.11505): the mean of products, cut to each client's rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora
from hanse.tensors.named import Layout, RunningMean, Tensors, drop, layout


@dataclass(frozen=True)
class FlexLoRA(FedAvg):
    """W ← Σ pₖsₖBₖAₖ, of which client k is sent the best approximation of its own rank rₖ.

    The mean is exact and kept whole, as factors; what is cut off for a client, and for the server's
    own adapter, is the tail of the singular values. Each client's s = α/r is put into the product
    and taken out again, so unequal ones are no matter. Where the product has less than a client's
    rank, the client fills up with rows of A as it began, and columns of B that are zero: otherwise
    both would be zero, and never learn (this filling up is ours; the paper is silent).
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    resets_optimizer: ClassVar[bool] = (
        True  # the decomposition turns the factors about in every round
    )
    payload: ClassVar[str] = "factors"
    clients_may_differ: ClassVar[bool] = True

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        refuse_other_than_lora(model, type(self).__name__)
        begun = gone_on_from(model, server.learner.scaling)
        short = {name: low_rank.shortened(own)[0] for name, own in begun.items()}
        return {"model": model, "product": low_rank.tensors(short)}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        rank, scaling = _own(profile)
        other = low_rank.non_factor_tensors(state["model"])
        return Instruction({**_cut(state["product"], rank, scaling), **other})

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        rank = _own(profile)[0]
        found = low_rank.layers(layout(state["model"]))
        sized = low_rank.tensors({n: low_rank.resized(own, rank) for n, own in found.items()})
        return {**sized, **low_rank.non_factor_tensors(layout(state["model"]))}

    def train(self, instruction: Instruction, client: Client) -> Update:
        ended, fit = client.learner.trained(self.personalized(instruction, client))
        return Update(ended, fit.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        initial, sent = (
            low_rank.layers(client.learner.initial()),
            low_rank.layers(instruction.tensors),
        )
        filled = {name: low_rank.filled(sent.get(name), own) for name, own in initial.items()}
        return {**low_rank.tensors(filled), **low_rank.non_factor_tensors(instruction.tensors)}

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        parts: list[tuple[float, dict[str, Factors]]] = []
        for profile, update in updates:
            own, scaling = low_rank.layers(update.tensors), _own(profile)[1]
            scaled = {name: low_rank.scaled(one, scaling) for name, one in own.items()}
            parts.append((update.weight, scaled))
        whole = {n: low_rank.shortened(one)[0] for n, one in low_rank.mean(parts).items()}
        clients, other = tuple(profile.name for profile, _ in updates), RunningMean()
        for _, update in updates:
            other.add(low_rank.non_factor_tensors(update.tensors), update.weight)
        return Aggregate({**low_rank.tensors(whole), **other.value()}, {}, other.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        other = low_rank.non_factor_tensors(combined.tensors)
        product = drop(combined.tensors, other)
        like = low_rank.layers(state["model"])
        rank = next(iter(like.values())).rank
        cut = low_rank.layers(_cut(product, rank, server.learner.scaling))
        model = {name: low_rank.padded(own, rank) for name, own in cut.items()}
        return {"model": {**low_rank.tensors(model), **other}, "product": product}


def gone_on_from(model: Tensors, scaling: float) -> dict[str, Factors]:
    """The products of an adapter that is gone on from; empty for one that changes nothing yet."""
    scaled = {name: low_rank.scaled(own, scaling) for name, own in low_rank.layers(model).items()}
    return scaled if any(bool(own.up.any()) for own in scaled.values()) else {}


def _own(profile: ClientProfile) -> tuple[int, float]:
    """A client's rank and s = α/r."""
    return int(profile.numbers["rank"]), profile.numbers.get("scaling", 1.0)


def _cut(product: Tensors, rank: int, scaling: float) -> Tensors:
    """The best factors of at most this rank, for an adapter that multiplies them by `scaling`."""
    return low_rank.tensors(
        {
            name: low_rank.scaled(low_rank.first(own, rank), 1 / scaling)
            for name, own in low_rank.layers(product).items()
        }
    )
