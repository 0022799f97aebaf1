"""Randomness derived from (seed, round, client, purpose), so that no draw depends on another."""

import hashlib
from dataclasses import dataclass

from hanse.lazy_imports import lazy_imports

with lazy_imports():
    import torch


@dataclass(frozen=True)
class RoundContext:
    """The context of a draw: the seed of the run, the round, and the client.

    Draws depend on nothing else: not on what was drawn before, not on the order of the clients,
    not on whether the run was stopped in between.

    rounds: the number of rounds of the run, for schedules over them; 0 where it is not known.
    clients: the number of clients that a round waits for; 0 where it is not known.
    """

    seed: int
    round: int = 0
    client: str = ""
    rounds: int = 0
    clients: int = 0

    def derive(self, purpose: str) -> int:
        """A seed of 63 bits for one purpose in this context."""
        text = f"{self.seed}/{self.round}/{self.client}/{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self, purpose: str) -> "torch.Generator":
        """A CPU generator seeded for one purpose in this context."""
        return torch.Generator().manual_seed(self.derive(purpose))
