"""FedKSeed (Qin et al. 2024, 2312.06353) by sums, for a server that sees sums over clients only."""

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedkseed import GRADIENTS, FedKSeed, made_steps
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout

log = logging.getLogger(__name__)

MOST_LONE = 0.01  # of the seeds of a round, before the run begins with a warning


@dataclass(frozen=True)
class FedKSeedSums(FedKSeed):
    """FedKSeed whose clients send the sum Hₖ[s] of their gradients of each seed: 4K bytes.

    G[s] ← G[s] + Σ pₖHₖ[s] is linear in Hₖ, so the weighted mean is all that the server needs. Each
    sum is rounded once to float32; apart from that, the model is FedKSeed's, which sends 8 bytes a
    step instead.

    Everybody can compute the seeds of a client from the seed of the run. The sum over clients at a
    seed that only one of them has drawn is therefore this client's own: choose `seeds` well below
    the number of steps, so that many clients draw each seed.

    |ĝ| may be several hundreds. Secure aggregation cuts |nₖ/N·Hₖ[s]| at `aggregator.secagg.clip`,
    with a client's nₖ examples and the N of the client that has most, so its clip must exceed the
    largest |Hₖ[s]| of that client. `clip` here bounds |ĝ| by clip/2ε, and |Hₖ[s]| by that for each
    time that s is drawn.
    """

    # A median would be 0 for each seed that fewer than half of the clients have drawn.
    needs: ClassVar[frozenset[str]] = frozenset({MEAN})
    payload: ClassVar[str] = "change"  # of G: each number keeps its direction in all rounds
    for_sums: ClassVar[str] = ""

    combine = Algorithm.combine  # it is left to the aggregator

    def __post_init__(self) -> None:
        if self.pro:
            raise UserError(
                "fedkseed_sums.pro came as True, but FedKSeed-Pro counts each client's gradients "
                "alike, and a mean of sums weights them by the clients' examples; set pro: false, "
                "or choose algorithm: {fedkseed: {pro: true}} and the aggregator mean."
            )

    def init(self, server: Server) -> State:
        clients, steps = server.num_clients, server.learner.whole_model.steps
        lone = lone_share(self.seeds, steps, clients)
        if lone > MOST_LONE:
            log.warning(
                "%.0f %% of the seeds of a round are drawn by one of %d clients alone, whose "
                "gradient the sum over clients then shows; lower fedkseed_sums.seeds, which is "
                "%d, or raise train.max_steps, which is %d",
                *(100 * lone, clients, self.seeds, steps),
            )
        return super().init(server)

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return {GRADIENTS: torch.empty(self.seeds, device="meta")}

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        """Sums name no seeds, so any finite numbers can be."""

    def train(self, instruction: Instruction, client: Client) -> Update:
        update = super().train(instruction, client)
        seeds, gradients = made_steps(update.tensors)
        sums = torch.zeros(self.seeds, dtype=torch.float64).index_add_(0, seeds, gradients)
        return replace(update, tensors={GRADIENTS: sums.float()})


def lone_share(seeds: int, steps: int, clients: int) -> float:
    """The expected seeds that exactly one client draws, by the expected seeds that any draws.

    Each client draws one of the seeds for each of its steps, all alike likely.
    """
    misses = (1 - 1 / seeds) ** steps  # the chance that a client never draws a given seed
    return clients * (1 - misses) * misses ** (clients - 1) / (1 - misses**clients)
