"""Clients that sign for each other before they train, as they do with keys of secure sums."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from cryptography.exceptions import InvalidSignature

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import Layout

SIGNATURE = torch.empty(64, dtype=torch.uint8, device="meta")


@dataclass(frozen=True)
class SignedGreetings(Mean):
    """The mean, once every client has verified a signature of every other one.

    required: clients that must verify all signatures.
    """

    needs_identity: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = Mean.gives
    required: int = 3

    def aggregate(self, exchange: Exchange) -> Aggregate:
        names = list(exchange.profiles)
        signature: Layout = {"signature": SIGNATURE}
        greetings = {
            profile.name: update.tensors["signature"]
            for profile, update in exchange.ask(
                "greet", dict.fromkeys(names, Instruction()), dict.fromkeys(names, signature)
            )
        }
        all_greetings, nothing = Instruction(greetings), dict[str, Layout]()
        verified = exchange.ask(
            "verify",
            dict.fromkeys(greetings, all_greetings),
            {name: nothing for name in greetings},
        )
        if (left := len(list(verified))) < self.required:
            raise TooFewClientsError(left, self.required)
        return super().aggregate(exchange)

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        identity, text = client.identity, f"greeting {client.context.round}".encode()
        assert identity is not None
        if kind == "greet":
            greeting = bytearray(identity.key.sign(text))
            return Update({"signature": torch.frombuffer(greeting, dtype=torch.uint8)})
        for name, greeting in instruction.tensors.items():
            if name == identity.name:
                continue
            try:
                identity.peers[name].verify(greeting.numpy().tobytes(), text)
            except InvalidSignature:
                raise UserError(f"{name} has not signed its greeting.") from None
        return Update()
