"""FlexLoRA (Bai et al. 2024, 2402.11505): the mean of products, truncated to each client's rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import WEIGHED, Difference
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors, refuse_other_than_lora, refuse_unequal_ranks
from hanse.tensors.named import Layout, RunningMean, Tensors, drop, layout


@dataclass(frozen=True)
class FlexLoRA(FedAvg):
    """W ← Σ pₖsₖBₖAₖ; client k gets the best approximation of its own rank rₖ.

    The server keeps the exact mean as factors. Clients and the server's own adapter get it without
    the smallest singular values. Each client's scaling s = α/r is multiplied into the product and
    divided out again, so clients' scalings may differ. If the product's rank is lower than a
    client's, the client adds rows of its initial A and zero columns of B. Otherwise both would be
    zero and never train (these added rows are ours; the paper does not mention the case).
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({WEIGHED})
    for_sums: ClassVar[str] = "ffa_lora"  # its mean of products is exact
    resets_optimizer: ClassVar[bool] = True  # each round's decomposition rotates the factors
    payload: ClassVar[str] = "factors"
    needs_factors: ClassVar[bool] = True
    clients_may_differ: ClassVar[Difference] = "rank"

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        refuse_other_than_lora(model, type(self).__name__)
        refuse_unequal_ranks(model, type(self).__name__)
        products = trained_products(model, server.learner.scaling)
        short = {name: low_rank.shortened(factors)[0] for name, factors in products.items()}
        return {"model": model, "product": low_rank.tensors(short)}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        rank, scaling = _rank_and_scaling(profile)
        other = low_rank.non_factor_tensors(state["model"])
        return Instruction({**_cut(state["product"], rank, scaling), **other})

    def typical(self, state: State) -> State:
        """A state whose product is of the adapter's rank; that of a fresh adapter is empty."""
        other = low_rank.non_factor_tensors(state["model"])
        return {**state, "product": state["product"] or drop(state["model"], other)}

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        rank, model = _rank_and_scaling(profile)[0], layout(state["model"])
        layers = low_rank.layers(model)
        resized = {name: low_rank.resized(factors, rank) for name, factors in layers.items()}
        return {**low_rank.tensors(resized), **low_rank.non_factor_tensors(model)}

    def train(self, instruction: Instruction, client: Client) -> Update:
        tensors, result = client.learner.trained(self.personalized(instruction, client))
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        initial, sent = (
            low_rank.layers(client.learner.initial()),
            low_rank.layers(instruction.tensors),
        )
        filled = {name: low_rank.filled(sent.get(name), fresh) for name, fresh in initial.items()}
        return {**low_rank.tensors(filled), **low_rank.non_factor_tensors(instruction.tensors)}

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        parts: list[tuple[float, dict[str, Factors]]] = []
        for profile, update in updates:
            layers, scaling = low_rank.layers(update.tensors), _rank_and_scaling(profile)[1]
            scaled = {name: low_rank.scaled(factors, scaling) for name, factors in layers.items()}
            parts.append((update.weight, scaled))
        short = {n: low_rank.shortened(mean)[0] for n, mean in low_rank.mean(parts).items()}
        clients, other = tuple(profile.name for profile, _ in updates), RunningMean()
        for _, update in updates:
            other.add(low_rank.non_factor_tensors(update.tensors), update.weight)
        return Aggregate({**low_rank.tensors(short), **other.value()}, {}, other.weight, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        other = low_rank.non_factor_tensors(combined.tensors)
        product = drop(combined.tensors, other)
        rank = next(iter(low_rank.layers(state["model"]).values())).rank
        cut = low_rank.layers(_cut(product, rank, server.learner.scaling))
        model = {name: low_rank.padded(factors, rank) for name, factors in cut.items()}
        return {"model": {**low_rank.tensors(model), **other}, "product": product}


def trained_products(model: Tensors, scaling: float) -> dict[str, Factors]:
    """The scaled products of an adapter by layer; empty for an untrained adapter, whose B is 0."""
    layers = low_rank.layers(model)
    scaled = {name: low_rank.scaled(factors, scaling) for name, factors in layers.items()}
    return scaled if any(bool(factors.up.any()) for factors in scaled.values()) else {}


def _rank_and_scaling(profile: ClientProfile) -> tuple[int, float]:
    """A client's rank and s = α/r."""
    return int(profile.numbers["rank"]), profile.numbers.get("scaling", 1.0)


def _cut(product: Tensors, rank: int, scaling: float) -> Tensors:
    """The best factors of at most this rank, divided by the scaling of their receiver."""
    return low_rank.tensors(
        {
            name: low_rank.scaled(low_rank.first(factors, rank), 1 / scaling)
            for name, factors in low_rank.layers(product).items()
        }
    )
