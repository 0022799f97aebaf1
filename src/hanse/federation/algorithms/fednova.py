"""FedNova (Wang et al. 2020, 2007.07481): clients that take more steps do not pull more."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import MEAN, NUMBERS
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import add, scale


@dataclass(frozen=True)
class FedNova(FedAvg):
    """x ← x + (Σ pₖ‖aₖ‖₁)·Σ pₖ(yₖ − x)/‖aₖ‖₁, client k's change being −Σ aₖᵢgₖᵢ of its gradients.

    FedAvg's mean would be led by the clients with most steps, to an optimum that is not that of the
    weighted loss. For τ steps of plain SGD at one rate ‖a‖₁ is τ times the rate; momentum ρ makes
    it [τ − ρ(1 − ρ^τ)/(1 − ρ)]/(1 − ρ) times the rate, from a velocity of zero at a round's begin.
    A schedule's rates are in a; gₖᵢ is the gradient that the step takes, clipped if the settings
    say so. AdamW's changes are no such sum. With equal ‖aₖ‖₁ this is FedAvg.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})
    numbers: ClassVar[tuple[str, ...]] = ("sum_a",)
    optimizers: ClassVar[tuple[str, ...]] = ("momentum", "sgd")
    resets_optimizer: ClassVar[bool] = True

    def train(self, instruction: Instruction, client: Client) -> Update:
        change, fit = client.learner.change(instruction.tensors)
        if fit.sum_a is None:
            raise TypeError("FedNova's clients report no sum_a: their changes sum no gradients")
        # A warm-up's first step has moved nothing, and says nothing of the gradient.
        share = 1 / fit.sum_a if fit.sum_a else 0.0
        return Update(scale(change, share), fit.numbers(), weight=client.profile.examples)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        mean = combined.numbers["sum_a"]  # Σ pₖ‖aₖ‖₁
        return {**state, "model": add(state["model"], scale(combined.tensors, mean))}
