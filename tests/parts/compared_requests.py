"""A mean over clients that see before they train that all were sent the same, as secure sums do."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from cryptography.exceptions import InvalidSignature

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import RunningMean, from_bytes, to_bytes

SIGNATURE = torch.empty(64, dtype=torch.uint8, device="meta")


@dataclass(frozen=True)
class ComparedRequests(Aggregator):
    """Clients sign the digest of their train request, and verify the signatures of all others.

    patience: seconds to wait for signatures.
    """

    gives: ClassVar[frozenset[str]] = frozenset({MEAN})
    needs_identity: ClassVar[bool] = True
    agrees: ClassVar[bool] = True
    patience: float = 5.0

    def aggregate(self, exchange: Exchange) -> Aggregate:
        digest = Instruction({"digest": from_bytes(exchange.digest())})
        asked = dict.fromkeys(exchange.profiles, digest)
        form = {name: {"signature": SIGNATURE} for name in asked}
        signed = {
            profile.name: update.tensors["signature"]
            for profile, update in exchange.ask("sign", asked, form, self.patience)
        }
        mean, clients = RunningMean(), []
        for profile, update in exchange.updates(dict.fromkeys(signed, Instruction(signed))):
            mean.add(update.tensors, update.weight)
            clients.append(profile.name)
        if not clients:
            return Aggregate({}, {}, 0.0, ())
        return Aggregate(mean.value(), {}, mean.weight, tuple(clients))

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        assert client.identity is not None
        text = client.job.encode() + to_bytes(instruction.tensors["digest"])
        return Update({"signature": from_bytes(client.identity.key.sign(text))})

    def admit(self, note: Instruction, client: Client) -> None:
        assert client.identity is not None
        if len(note.tensors) < client.least_cohort:
            raise UserError(f"{len(note.tensors)} clients are fewer than {client.least_cohort}.")
        text = client.job.encode() + client.request_digest
        for name in note.tensors.keys() - {client.identity.name}:
            try:
                client.identity.peers[name].verify(to_bytes(note.tensors[name]), text)
            except InvalidSignature:
                raise UserError(f"{name} was sent something else.") from None
