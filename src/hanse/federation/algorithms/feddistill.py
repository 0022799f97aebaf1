"""Federated distillation by the mean of predictions (FedMD; Li & Wang 2019, 1910.03581)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat

from hanse.errors import UserError
from hanse.federation.distillation.imitation import Imitation
from hanse.federation.distillation.logit_exchange import LogitExchange, refuse_unusable
from hanse.federation.distillation.public_logits import (
    PUBLIC,
    PublicRows,
    predictions,
    public_rows,
)
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from hanse.tensors.named import Layout, Tensors


@dataclass(frozen=True)
class FedDistill(LogitExchange):
    """Unequal models learn the mean of their predictions on public rows; no parameter travels.

    In a round a client learns the last mean (FedMD's digest), trains on its own rows (revisit), and
    sends its k largest logits of each public row with the mass of the others. The server's model
    learns the new mean. The mean is of softmax(logits / temperature), where every client counts the
    same: FedMD averages the scores themselves, which classes that are left out do not have.

    A row is an example with its label words, or a labelled place in one of a language model. N rows
    take N·(k·(e + 4) + e) bytes up and as many down, with e bytes for a number.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    temperature: PositiveFloat = 1.0
    public_first: bool = False  # all models train on public rows and labels first, as FedMD's do

    def init(self, server: Server) -> State:
        rows = public_rows(server.learner)
        self.refuse_more(self.k or 0, rows.classes, "the model")
        if self.public_first:
            server.learner.fit(split=PUBLIC)
        numbers = {n: torch.tensor(v, dtype=torch.float64) for n, v in _numbers(rows).items()}
        return {"model": server.learner.tensors(), "rows": numbers}

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        numbers = {name: float(number) for name, number in state["rows"].items()}
        return Instruction(state.get("logits", {}), numbers)

    def typical(self, state: State) -> State:
        return {**state, "logits": self.any_logits(*self._sizes(state))}

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return self.logits_layout(*self._sizes(state))

    def validate(self, update: Update, state: State, profile: ClientProfile) -> None:
        self.check(update.tensors, int(state["rows"]["classes"]))

    def train(self, instruction: Instruction, client: Client) -> Update:
        learner, rows = client.learner, public_rows(client.learner)
        refuse_other_rows(rows, instruction.numbers, client.profile.name)
        if instruction.tensors:
            refuse_unusable(instruction.tensors, rows.total, rows.classes)
        learner.load(self.personalized(instruction, client))
        if self.public_first and not client.memory:
            learner.fit(split=PUBLIC)
        if instruction.tensors:
            self._digest(learner, rows, instruction.tensors)
        result = learner.fit()
        client.memory.update(learner.tensors())
        form = self.form(self.kept(rows.classes), self.temperature)
        return Update(predictions(learner, rows, form), result.numbers())

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        mean = top_k.mean([(update.weight, update.tensors) for _, update in updates])
        weight = sum(update.weight for _, update in updates)
        return Aggregate(mean, {}, weight, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        learner = server.learner
        learner.load(state["model"])
        self._digest(learner, public_rows(learner), combined.tensors)
        return {**state, "model": learner.tensors(), "logits": combined.tensors}

    def _sizes(self, state: State) -> tuple[int, int]:
        """The number of public rows, and that of their classes."""
        return int(state["rows"]["rows"]), int(state["rows"]["classes"])

    def _digest(self, learner: Learner, rows: PublicRows, mean: Tensors) -> None:
        """Train the learner to predict the mean."""
        learner.fit(objective=Imitation(rows, mean, self.temperature), split=PUBLIC)


def _numbers(rows: PublicRows) -> dict[str, float]:
    """The sizes of the rows and 48 bits of the digest, as numbers of a message."""
    digest = int(rows.digest[:12], 16) if rows.digest else 0
    return {"rows": rows.total, "classes": rows.classes, "labels": digest}


def refuse_other_rows(rows: PublicRows, server: Mapping[str, float], name: str) -> None:
    """Raise UserError unless a client's public rows are those of the server.

    server: the numbers of the server's rows. name: the client's.
    """
    mine = _numbers(rows)
    theirs = {number: server.get(number, 0.0) for number in mine}
    if mine == theirs:
        return
    raise UserError(
        f"the public data of {name} have {_in_words(mine)}, and those of the server "
        f"{_in_words(theirs)}; bring the same file and labels, or, for models whose tokenizer or "
        "max_length differs, choose objective: classify, which compares label words."
    )


def _in_words(numbers: Mapping[str, float]) -> str:
    """The numbers of public rows in a sentence."""
    hashed = f" with the hash {int(numbers['labels']):012x}" if numbers["labels"] else ""
    return f"{numbers['rows']:,.0f} labelled rows{hashed} of {numbers['classes']:,.0f} classes"
