"""Clients of a secure sum without a federation: their halves, called by hand."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hanse.federation.secure_sums.bitmap import bitmap
from hanse.federation.secure_sums.client_half import Participation
from hanse.federation.secure_sums.contents import to_tensors
from hanse.federation.secure_sums.grid import Grid
from hanse.federation.secure_sums.plan import Plan
from hanse.federation.secure_sums.statements import Terms
from hanse.security.identity import simulated

NAMES = ("a", "b", "c", "d", "e")
PLAN = Plan(clients=5, threshold=4, neighbours=4)
GRID = Grid(clients=5, bits=32, clip=1.0, weight_bound=1.0)
REQUEST = b"\x01" * 32


def part(name: str, least: int = 1, quorum: int = 1, **terms: Any) -> Participation:
    """One client's half of a sum of the five clients."""
    own = Terms(
        **{"job": "job", "round": 1, "request": REQUEST, "plan": PLAN, "grid": GRID, **terms}
    )
    return Participation(simulated(0, name, NAMES), own, NAMES, least, quorum)


def summand(value: float = 0.25, size: int = 3) -> dict[str, Tensor]:
    return {"x": torch.full((size,), value).double(), "#weight": torch.tensor(1.0).double()}


@dataclass
class Parties:
    """Five clients, and what an honest server would send them."""

    parts: dict[str, Participation] = field(default_factory=lambda: {n: part(n) for n in NAMES})
    boxes: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def keys(self, receiver: str) -> dict[str, Tensor]:
        """The advertisements of all others."""
        sent = {n: p.advertisement().to_bytes() for n, p in self.parts.items() if n != receiver}
        return to_tensors(sent)

    def shared(self) -> "Parties":
        """The clients after each has shared its secrets."""
        self.boxes = {name: own.share(self.keys(name)) for name, own in self.parts.items()}
        return self

    def received(self, receiver: str, senders: Iterable[str] = NAMES) -> dict[str, Tensor]:
        """The boxes for one client."""
        return to_tensors({n: self.boxes[n][receiver] for n in senders if n != receiver})

    def masked(self) -> dict[str, dict[str, Tensor]]:
        """The masked summands of all."""
        result = {}
        for name, own in self.parts.items():
            own.admit(self.received(name), REQUEST)
            result[name] = own.mask(summand())
        return result

    def signed(self, survivors: Iterable[str] = NAMES) -> dict[str, Tensor]:
        """The signatures of the survivors on the list of them."""
        survivors = tuple(survivors)
        bits = bitmap((NAMES.index(name) + 1 for name in survivors), len(NAMES))
        return to_tensors({name: self.parts[name].sign(bits) for name in survivors})
