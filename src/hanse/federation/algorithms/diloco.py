"""DiLoCo (Douillard et al. 2023, 2311.08105) and its streaming form (2501.18512)."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import (
    Layout,
    Tensors,
    add_prefix,
    add_where_present,
    drop,
    layout,
    map_tensors,
    strip_prefix,
    subtract,
)

LOCAL, GLOBAL = "local/", "global/"  # prefixes in a client's memory


@dataclass(frozen=True)
class DiLoCo(FedAvg):
    """Many inner steps, then an outer step of SGD with Nesterov momentum on the mean change Δ.

    Outer step: m ← μm + Δ, x ← x + η(Δ + μm). Δ = Σ pₖ(yₖ − x) is the pseudo-gradient with its sign
    reversed. The inner steps (`train.max_steps`, 500 in the paper, by AdamW) keep the optimizer's
    state from round to round. With one inner step, η = 1 and μ = 0 this is FedAvg.

    fragments: N > 1 synchronises one of N parts of the model in each round, in turn; a part has
    each N-th layer. A client sends its change of that part since it last got it, and gets the part
    again after the outer step. The other parts go on locally, from the client's memory. The first
    round brings all parts; one after rounds that did not count the client brings what it missed.

    The streaming paper also hides the exchange behind inner steps, applies its result some steps
    later, and mixes it with local values to make up for the delay. Here a round waits for the
    exchange, so nothing is late or mixed. Codecs of the upload replace its four-bit numbers.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    resets_optimizer: ClassVar[bool] = False
    keeps_optimizer: ClassVar[bool] = True
    learning_rate: PositiveFloat = 0.7  # η of the outer step
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # μ of the outer step
    fragments: PositiveInt = 1  # N

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        if self.fragments > (blocks := len({*map(_block, model)})):
            raise UserError(
                f"diloco.fragments came as {self.fragments}, but the adapter has tensors in "
                f"{blocks} layers only; set fragments to at most {blocks}."
            )
        momentum = map_tensors(torch.zeros_like, model)
        return {"model": model, "momentum": momentum, "round": {"last": torch.tensor(0)}}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        """The fragments that have changed since the client's memory; all if it has none."""
        model, since = state["model"], profile.last_counted_round
        if not since:
            return Instruction(model)
        last = int(state["round"]["last"])
        rounds = range(max(since, last - self.fragments + 1), last + 1)
        changed = {name for round in rounds for name in self._fragment(model, round)}
        return Instruction({name: tensor for name, tensor in model.items() if name in changed})

    @property
    def unlike_instructions(self) -> str:
        return "diloco.fragments above 1" if self.fragments > 1 else ""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(self._fragment(state["model"], context.round))

    def train(self, instruction: Instruction, client: Client) -> Update:
        model = self.personalized(instruction, client)
        start = {**model, **drop(strip_prefix(client.memory, LOCAL), instruction.tensors)}
        tensors, result = client.learner.trained(start)
        sent = self._fragment(tensors, client.context.round)
        client.memory.clear()
        client.memory.update(add_prefix(LOCAL, drop(tensors, sent)))
        client.memory.update(add_prefix(GLOBAL, drop(model, sent)))
        change = subtract(sent, {name: model[name] for name in sent})
        return Update(change, result.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        """The server's model: its fragments that came before, and those of the instruction."""
        return {**strip_prefix(client.memory, GLOBAL), **instruction.tensors}

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        delta, rate, mu = combined.tensors, self.learning_rate, self.momentum
        before = {name: state["momentum"][name] for name in delta}
        momentum = map_tensors(lambda m, d: mu * m + d, before, delta)
        step = map_tensors(lambda m, d: rate * (d + mu * m), momentum, delta)
        return {
            "model": add_where_present(state["model"], step),
            "momentum": {**state["momentum"], **momentum},
            "round": {"last": torch.tensor(server.context.round)},
        }

    def _fragment(self, model: Tensors, round: int) -> Tensors:
        """The tensors of all that a round synchronises."""
        blocks = sorted({*map(_block, model)})
        due = {*blocks[(round - 1) % self.fragments :: self.fragments]}
        return {name: tensor for name, tensor in model.items() if _block(name) in due}


def _block(name: str) -> tuple[str, int]:
    """The layer that a tensor is in, sorted by number; a tensor in none is a layer of its own."""
    number = re.search(r"(?:^|\.)(\d+)\.", name)
    return (name[: number.start(1)], int(number[1])) if number else (name, -1)
