"""FedAvg whose clients also train on public rows, and report which ones they have."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update


@dataclass(frozen=True)
class PublicHashes(FedAvg):
    """FedAvg; the server refuses clients whose public rows have other tokens than its own."""

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    numbers: ClassVar[tuple[str, ...]] = ("public",)
    needs_public: ClassVar[tuple[str, ...]] = ("server", "clients")

    def train(self, instruction: Instruction, client: Client) -> Update:
        client.learner.load(instruction.tensors)
        client.learner.fit(split="public")
        update = super().train(Instruction(client.learner.tensors()), client)
        numbers = {**update.numbers, "public": hashed(client.learner.examples("public"))}
        return Update(update.tensors, numbers, weight=update.weight)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        own = hashed(server.learner.examples("public"))
        assert abs(combined.numbers["public"] - own) < 0.5, "all have the server's rows"
        return super().step(state, combined, server)


@dataclass(frozen=True)
class PublicAtServer(FedAvg):
    """FedAvg whose server alone has the public rows."""

    needs: ClassVar[frozenset[str]] = frozenset()
    needs_public: ClassVar[tuple[str, ...]] = ("server",)


def hashed(examples: Sequence[Any]) -> float:
    """A number of 24 bits that tells the tokens and labels of examples apart."""
    text = repr([(tuple(example.ids), tuple(example.labels)) for example in examples])
    return float(int(hashlib.sha256(text.encode()).hexdigest()[:6], 16))
