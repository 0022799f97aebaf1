"""A secure sum in four phases with drop-outs: a toy of LightSecAgg (So et al. 2022, 2109.14236).

Each client masks its summand, and gives every client a Shamir share of the mask. Sums of shares
are shares of the sum of masks, which is all that clients reveal. A toy: the field is small, and
secrets come from the run's seed, so that tests repeat.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Aggregator, Exchange, TooFewClientsError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import MEAN, NUMBERS
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors.named import Layout, Tensors

PRIME, BASE = 2**31 - 1, 7  # products of two numbers below PRIME fit into int64


@dataclass(frozen=True)
class SecureSum(Aggregator):
    """Phases keys, train, shares, unmask; values are multiples of `grid`, below 2³⁰ of them."""

    sums_only: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})
    threshold: int = 2
    grid: float = 2.0**-16

    def layout(self, expected: Layout) -> Layout:
        return {name: torch.empty_like(t, dtype=torch.int64) for name, t in expected.items()}

    def aggregate(self, exchange: Exchange) -> Aggregate:
        hello = dict.fromkeys(exchange.profiles, Instruction())
        form = {name: {"key": whole(1)} for name in hello}
        keys = self._enough(exchange.ask("keys", hello, form))
        book = Instruction({name: update.tensors["key"] for name, update in keys.items()})
        inputs = self._enough(exchange.sealed(dict.fromkeys(keys, book)))
        shape = {name: whole(len(flat(next(iter(inputs.values()))))) for name in inputs}
        peers = Instruction(numbers=dict.fromkeys(inputs, 1.0))
        asked, forms = dict.fromkeys(inputs, peers), dict.fromkeys(inputs, shape)
        shares = self._enough(exchange.ask("shares", asked, forms))
        parts = {n: Instruction({o: shares[o].tensors[n] for o in shares}) for n in shares}
        one = {name: {"sum": form} for name, form in shape.items()}
        opened = self._enough(exchange.ask("unmask", parts, one))
        places = {name: at for at, name in enumerate(sorted(inputs), start=1)}
        points = {places[n]: update.tensors["sum"] for n, update in opened.items()}
        mask = rebuilt(dict([*points.items()][: self.threshold]))
        total = (sum(flat(inputs[name]) for name in shares) - mask) % PRIME
        signed = torch.where(total > PRIME // 2, total - PRIME, total) * self.grid
        return exchange.mean(unflat(signed, next(iter(inputs.values()))), list(shares))

    def _enough(self, answers: Iterable[tuple[ClientProfile, Any]]) -> dict[str, Any]:
        came = {profile.name: answer for profile, answer in answers}
        if len(came) < self.threshold:
            raise TooFewClientsError(len(came), self.threshold)
        return came

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        values = (flat(summand) / self.grid).round().long()
        mask = drawn(len(values), client.context.derive("mask"))
        client.session.update(book=note.tensors, mask=mask, revealed=False)
        return unflat((values + mask) % PRIME, summand)

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        secret, me = client.context.derive("key") % PRIME, client.profile.name
        if kind == "keys":
            return Update({"key": torch.tensor([pow(BASE, secret, PRIME)])})
        book, mask = client.session["book"], client.session["mask"]

        def pad(other: str, sender: str) -> Tensor:
            """The one-time pad of a share between two clients (Diffie and Hellman)."""
            text = f"{pow(int(book[other]), secret, PRIME)} {sender}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            return drawn(len(mask), seed)

        if kind == "shares":
            higher = [client.context.derive(f"power {k}") for k in range(1, self.threshold)]
            powers = [mask, *(drawn(len(mask), seed) for seed in higher)]
            shares, peers = {}, instruction.numbers
            for at, peer in enumerate(sorted(peers), start=1):
                terms = [c * pow(at, k, PRIME) for k, c in enumerate(powers)]
                shares[peer] = (sum(t % PRIME for t in terms) + pad(peer, me)) % PRIME
            return Update(shares)
        if client.session.pop("revealed", True) or len(instruction.tensors) < self.threshold:
            raise UserError("a client reveals its shares once, and for enough others only.")
        shares = {other: t - pad(other, other) for other, t in instruction.tensors.items()}
        return Update({"sum": sum(shares.values()) % PRIME})


def whole(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.int64, device="meta")


def drawn(size: int, seed: int) -> Tensor:
    return torch.randint(PRIME, (size,), generator=torch.Generator().manual_seed(seed))


def flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def unflat(values: Tensor, like: Tensors) -> dict[str, Tensor]:
    parts = values.split([like[name].numel() for name in sorted(like)])
    return {n: p.view(like[n].shape) for n, p in zip(sorted(like), parts, strict=True)}


def rebuilt(points: Mapping[int, Tensor]) -> Tensor:
    """The sum of masks behind its shares at these places (Lagrange's formula at 0)."""
    for at, others in ((at, points.keys() - {at}) for at in points):
        factors = [other * pow(other - at, -1, PRIME) for other in others]
        points = {**points, at: points[at] * (math.prod(factors) % PRIME) % PRIME}
    return sum(points.values(), torch.tensor(0)) % PRIME
