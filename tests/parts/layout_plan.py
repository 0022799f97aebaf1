"""Each client trains the matrices and ranks of its own layout; what overlaps is averaged.

A toy of what per-silo plans ask of the roles: instructions and updates of another layout for each
client, and a mean of each element over the clients that trained it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.declarations import UPDATES, Difference
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import layouts
from hanse.tensors.named import Layout, add


@dataclass(frozen=True)
class LayoutPlan(FedAvg):
    """x ← x + Σ wₖ·(yₖ − x) / Σ wₖ for every element, over the clients k whose layout has it.

    The clients have one α/r.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    clients_may_differ: ClassVar[Difference] = "layout"

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        return Instruction(layouts.cut(state["model"], self._layout(profile)))

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return self._layout(profile)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = layouts.mean([(update.weight, update.tensors) for _, update in updates])
        weight = sum(update.weight for _, update in updates)
        return Aggregate(mean, {}, weight, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {"model": add(state["model"], layouts.padded(combined.tensors, state["model"]))}

    def _layout(self, profile: ClientProfile) -> "layouts.Tensors":
        assert profile.layout is not None  # clients_may_differ
        return profile.layout
