"""FedNova (Wang et al. 2020, 2007.07481): clients with more steps do not get more influence."""

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
    """x ← x + (Σ pₖ‖aₖ‖₁)·Σ pₖ(yₖ − x)/‖aₖ‖₁, where client k's change is −Σ aₖᵢgₖᵢ.

    In FedAvg the clients with the most steps dominate the mean, which then misses the optimum of
    the weighted loss. For τ steps of plain SGD at one rate, ‖a‖₁ is τ times the rate. With momentum
    ρ it is [τ − ρ(1 − ρ^τ)/(1 − ρ)]/(1 − ρ) times the rate, from a velocity of zero at the start of
    a round. The rates of a schedule are in a; gₖᵢ is the gradient of the step, after clipping.
    AdamW's changes are no such sum. With equal ‖aₖ‖₁ this is FedAvg.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})
    numbers: ClassVar[tuple[str, ...]] = ("sum_a",)
    optimizers: ClassVar[tuple[str, ...]] = ("momentum", "sgd")
    resets_optimizer: ClassVar[bool] = True

    def train(self, instruction: Instruction, client: Client) -> Update:
        change, result = client.learner.change(instruction.tensors)
        if result.sum_a is None:
            raise TypeError("FedNova's clients report no sum_a: their changes sum no gradients")
        # The first step of a warm-up has rate 0: there is no change to divide.
        share = 1 / result.sum_a if result.sum_a else 0.0
        return Update(scale(change, share), result.numbers(), weight=client.profile.examples)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        mean = combined.numbers["sum_a"]  # Σ pₖ‖aₖ‖₁
        return {**state, "model": add(state["model"], scale(combined.tensors, mean))}
