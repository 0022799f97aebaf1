"""FedKSeed and FedKSeed-Pro (Qin et al. 2024, 2312.06353): a whole model, trained by scalars."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.whole_model import MOST_STEPS, WholeModel
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import directions
from hanse.tensors.directions import AMOUNTS, SEED
from hanse.tensors.named import Layout, Tensors, drop
from hanse.tensors.serialization import MessageError

SEEDS, GRADIENTS, PROBABILITIES = "seeds", "gradients", "probabilities"
NO_STEP = -1  # in place of a seed: the step was left out, since a loss was not finite
LARGEST = 1000.0  # |ĝ| in the history of FedKSeed-Pro
LEAST_SPREAD = 1e-10  # of this history, which min-max scaling divides by


@dataclass(frozen=True)
class FedKSeed(Algorithm):
    """w = w₀ − η·Σ G[s]·z(s): K candidate seeds s, each with one direction z(s) of all weights.

    A step draws a seed s, sets w ← w − η·ĝ·z(s) with ĝ = (L(w + εz) − L(w − εz)) / 2ε, and sends s
    and ĝ: 8 bytes. The server adds the weighted mean of the clients' sums, G[s] ← G[s] + Σ pₖHₖ[s],
    which is the mean of their weights. A client gets G (4 bytes a seed) and replays it on w₀.
    FedKSeed-Pro draws seeds by probabilities that grow with the mean |ĝ| so far (4 bytes more a
    seed).
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    payload: ClassVar[str] = "scalars"
    instruction_payload: ClassVar[str] = "scalars"
    optimizers: ClassVar[tuple[str, ...]] = ("sgd",)
    whole_model: ClassVar[bool] = True
    for_sums: ClassVar[str] = "fedkseed_sums"

    seeds: Annotated[int, Field(ge=1, le=directions.MOST)] = 4096  # K
    epsilon: PositiveFloat = 5e-4  # ε, the length of a perturbation
    clip: PositiveFloat | None = None  # the largest |L(w + εz) − L(w − εz)|
    pro: bool = False

    def init(self, server: Server) -> State:
        whole = server.learner.whole_model
        seed = server.context.derive("directions") % 2**31
        state = {
            "model": {
                SEED: torch.tensor([seed], dtype=torch.int32),
                AMOUNTS: torch.zeros(self.seeds),
            },
            "sums": {GRADIENTS: torch.zeros(self.seeds, dtype=torch.float64)},
            "settings": {
                "learning_rate": torch.tensor([whole.learning_rate], dtype=torch.float64),
                "steps": torch.tensor([whole.steps]),
            },
        }
        return state | ({"history": _no_history(self.seeds)} if self.pro else {})

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        tensors = state["model"]
        if self.pro:
            tensors = {**tensors, PROBABILITIES: probabilities(**state["history"])}
        return Instruction(tensors, {"steps": float(state["settings"]["steps"])})

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return _no_steps(int(state["settings"]["steps"]), "meta")

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        seeds = update.tensors[SEEDS]
        if len(seeds) and not NO_STEP <= int(seeds.min()) <= int(seeds.max()) < self.seeds:
            raise MessageError(f"its seeds are not all among the {self.seeds} of this run")

    def measured(self, tensors: Tensors) -> Mapping[str, Tensors]:
        return {"norm of the gradients": {GRADIENTS: tensors[GRADIENTS]}}

    def train(self, instruction: Instruction, client: Client) -> Update:
        begin = time.perf_counter()
        whole, change = client.learner.whole_model, self.personalized(instruction, client)
        drawn = self._drawn(instruction, client.context)
        whole.replay(change)
        seed = int(change[SEED])
        tensors = _no_steps(len(drawn), "cpu")
        numbers = dict.fromkeys(("steps", "examples", "tokens", "loss"), 0.0)
        for step, (index, batches) in enumerate(zip(drawn, whole.round_batches(), strict=False)):
            loss, gradient = self._step(whole, seed, index, batches)
            numbers["examples"] += sum(batch.examples for batch in batches)
            numbers["tokens"] += sum(batch.tokens for batch in batches)
            if math.isfinite(gradient):
                tensors[SEEDS][step], tensors[GRADIENTS][step] = index, gradient
                numbers["steps"] += 1
                numbers["loss"] += loss
        if not numbers["steps"]:
            raise UserError(
                f"none of the {len(drawn):,} steps of the round had a finite loss: the model has "
                f"diverged; lower train.learning_rate, which is {whole.learning_rate:g}."
            )
        numbers["loss"] /= numbers["steps"]
        numbers["seconds"] = time.perf_counter() - begin
        return Update(tensors, numbers, weight=client.profile.examples)

    def _drawn(self, instruction: Instruction, context: RoundContext) -> list[int]:
        """The seed of each step of a round; raises UserError for an instruction that none has."""
        chances = instruction.tensors.get(PROBABILITIES, torch.ones(self.seeds))
        steps = instruction.numbers.get("steps", 0.0)
        amounts = instruction.tensors.get(AMOUNTS, torch.empty(0))
        sizes = {tuple(chances.shape), tuple(amounts.shape)}
        likely = bool((chances.isfinite() & (chances > 0)).all())
        if sizes != {(self.seeds,)} or not likely or not 1 <= steps <= MOST_STEPS:
            raise UserError(
                f"the server asks for {steps:g} steps along {amounts.numel()} seeds, where at most "
                f"{MOST_STEPS:,} steps and {self.seeds} likely seeds are due; look after the "
                "settings of the server."
            )
        generator = context.generator("seeds")
        drawn: list[int] = chances.multinomial(int(steps), True, generator=generator).tolist()
        return drawn

    def _step(
        self, whole: WholeModel, seed: int, index: int, batches: Sequence[Any]
    ) -> tuple[float, float]:
        """Make one step; return the loss and ĝ, as it is sent, which is NaN for no step."""

        def move(amount: float) -> None:
            directions.add(whole.weights(), seed, {index: amount})

        move(self.epsilon)
        above = whole.loss(batches)
        move(-2 * self.epsilon)
        below = whole.loss(batches)
        difference = above - below
        if self.clip is not None and math.isfinite(difference):
            difference = min(max(difference, -self.clip), self.clip)
        gradient = float(torch.tensor(difference / (2 * self.epsilon)))  # of four bytes
        finite = math.isfinite(gradient)
        move(self.epsilon - (whole.learning_rate * gradient if finite else 0.0))
        return (above + below) / 2, gradient if finite else math.nan

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return drop(instruction.tensors, {PROBABILITIES})

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        total = sum(update.weight for _, update in updates)
        sums = torch.zeros(self.seeds, dtype=torch.float64)
        history = {name: torch.zeros_like(sums) for name in ("magnitudes", "counts")}
        for _, update in updates:
            seeds, gradients = made_steps(update.tensors)
            sums.index_add_(0, seeds, gradients, alpha=update.weight / total)
            history["magnitudes"].index_add_(0, seeds, gradients.abs().clamp(max=LARGEST))
            history["counts"].index_add_(0, seeds, torch.ones_like(gradients))
        clients = tuple(profile.name for profile, _ in updates)
        return Aggregate({GRADIENTS: sums, **history}, {}, total, clients)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        sums = state["sums"][GRADIENTS] + combined.tensors[GRADIENTS]
        amounts = (-state["settings"]["learning_rate"] * sums).float()
        after = {**state, "sums": {GRADIENTS: sums}}
        after["model"] = {**state["model"], AMOUNTS: amounts}
        if self.pro:
            history = state["history"]
            after["history"] = {name: history[name] + combined.tensors[name] for name in history}
        return after


def probabilities(magnitudes: Tensor, counts: Tensor) -> Tensor:
    """(K,) probabilities in float32: softmax of the mean magnitudes, scaled to 0 … 1.

    magnitudes: (K,) Σ of |ĝ| of each seed, each at most LARGEST; counts: (K,) their number, plus
        one for the 0 that each seed begins with. No probability is more than e times another.
    """
    mean = magnitudes / counts
    scaled = (mean - mean.min()) / (mean.max() - mean.min() + LEAST_SPREAD)
    return scaled.softmax(0).float()


def made_steps(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """Seeds (T,) int64 and gradients (T,) float64 of the steps of an update that were made."""
    made = tensors[SEEDS] != NO_STEP
    return tensors[SEEDS][made].long(), tensors[GRADIENTS][made].double()


def _no_history(seeds: int) -> dict[str, Tensor]:
    """The history before the first round: one gradient of 0 for each seed."""
    return {
        "magnitudes": torch.zeros(seeds, dtype=torch.float64),
        "counts": torch.ones(seeds, dtype=torch.float64),
    }


def _no_steps(steps: int, device: str) -> dict[str, Tensor]:
    """The tensors of an update with as many steps that are left out."""
    return {
        SEEDS: torch.full((steps,), NO_STEP, dtype=torch.int32, device=device),
        GRADIENTS: torch.zeros(steps, device=device),
    }
