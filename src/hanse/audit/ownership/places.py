"""The places of a mark: what is measured of an adapter's tensors along the secret directions.

The published mark (FedIPR, 2109.13236, equations 4 to 6) is sign(γE) = b for a vector γ of M
weights, E (M, N) normal and secret, and N secret bits b. A LoRA adapter's factors are no such γ:
A → G·A with B → B·G⁻¹ changes no output and any sign of A·E. Therefore the place "product" measures
the products B·A, in which G is gone, along secret directions u·vᵀ (a reconstruction): the same
numbers come out after another factorization or another rank. Merged weights are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import Tensor

from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError
from hanse.tensors import low_rank, philox
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import Tensors, map_tensors

MOST_NUMBERS = 2**26  # of the secret matrix, which is in memory while a model is trained


class MarkedPlace(Protocol):
    """The numbers that a key measures of tensors.

    names: of the tensors that it reads. channels: M, the numbers that can move independently.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int: ...

    def on(self, device: torch.device) -> "MarkedPlace":
        """The same place with its directions on a device."""

    def measured(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """(N,) the coordinates along the key's directions, and their size in a random direction."""


def place_of(key: OwnershipKey, shapes: Mapping[str, Tensor]) -> MarkedPlace:
    """The place that a key names among tensors of these shapes.

    Raises UserError if there is no such tensor, if they have fewer channels than the key has bits,
    or if the key's matrix would fill the memory.
    """
    found = _products(key, shapes) if key.place == "product" else _weights(key, shapes)
    if not found.names:
        noun = "LoRA pair A and B" if key.place == "product" else "tensor"
        known = ", ".join(sorted(shapes)) or "none"
        raise UserError(
            f"the key of {key.owner:.80} marks {key.place} of {key.tensors!r:.80}, and no {noun} "
            f"of that name is trained here, so it has no place; trained are {known:.500}."
        )
    if found.channels < key.bits:
        raise UserError(
            f"the key of {key.owner:.80} has {key.bits} bits, and {key.place} of "
            f"{key.tensors!r:.80} have {found.channels} channels, which cannot hold them; make a "
            "key with fewer --bits, or whose --tensors names more of them."
        )
    return found


def normals(key: OwnershipKey, name: str, *shape: int) -> Tensor:
    """Secret standard normals for one name, the same on every machine to 1e-6, in float32."""
    words = key.derive(f"directions/{name}")
    pair = int.from_bytes(words[:4], "little"), int.from_bytes(words[4:], "little")
    size = int(torch.Size(shape).numel())
    return philox.normals(pair, 0, size, torch.device("cpu")).float().view(shape)


@dataclass(frozen=True)
class Weights:
    """Tensors as they are: γE/√M for γ of all their numbers, less each tensor's mean.

    Without its mean, a norm's scales of about 1 would all push each bit alike. The size in a random
    direction is the root of the mean square of γ with the means.
    """

    directions: Mapping[str, Tensor]  # (numbers, N) by tensor

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.directions)

    @property
    def channels(self) -> int:
        return sum(len(matrix) for matrix in self.directions.values())

    def on(self, device: torch.device) -> "Weights":
        return Weights(map_tensors(lambda tensor: tensor.to(device), self.directions))

    def measured(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        total, squares = torch.zeros(()), torch.zeros(())
        for name, matrix in self.directions.items():
            flat = tensors[name].flatten().float()
            total = total + (flat - flat.mean()) @ matrix
            squares = squares + flat.square().sum()
        return total / self.channels**0.5, (squares / self.channels).sqrt()


@dataclass(frozen=True)
class Products:
    """LoRA's products P = B·A: Σ uᵀ·P·v/√D over the layers, D numbers of all products.

    Its channels are the dimensions of all matrices of these ranks, r(out + in − r) for each layer.
    """

    out: Mapping[str, Tensor]  # (N, out) by layer
    into: Mapping[str, Tensor]  # (N, in)
    ranks: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(layer + end for layer in self.out for end in (A, B))

    @property
    def channels(self) -> int:
        sides = [(r, self.out[n].shape[1], self.into[n].shape[1]) for n, r in self.ranks.items()]
        return sum(min(r, out, into) * (out + into - min(r, out, into)) for r, out, into in sides)

    def on(self, device: torch.device) -> "Products":
        out, into = (
            map_tensors(lambda tensor: tensor.to(device), own) for own in (self.out, self.into)
        )
        return Products(out, into, self.ranks)

    def measured(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        total, squares, size = torch.zeros(()), torch.zeros(()), 0
        for layer, out in self.out.items():
            down, up = tensors[layer + A].float(), tensors[layer + B].float()
            left, right = out @ up, self.into[layer] @ down.T  # (N, r)
            total = total + (left * right).sum(1)
            squares = squares + ((up.T @ up) * (down @ down.T)).sum()  # ‖B·A‖²
            size += len(up) * down.shape[1]
        return total / size**0.5, (squares.clamp_min(0) / size).sqrt()


def _weights(key: OwnershipKey, shapes: Mapping[str, Tensor]) -> Weights:
    names = [name for name in sorted(shapes) if fnmatchcase(name, key.tensors)]
    _refuse_huge(key, sum(shapes[name].numel() for name in names))
    return Weights({n: normals(key, n, shapes[n].numel(), key.bits) for n in names})


def _products(key: OwnershipKey, shapes: Mapping[str, Tensor]) -> Products:
    pairs = {n.removesuffix(A) for n in shapes if n.endswith(A)}
    pairs &= {n.removesuffix(B) for n in shapes if n.endswith(B)}
    names = [n for n in sorted(pairs) if fnmatchcase(n, key.tensors) and shapes[n + A].dim() == 2]
    layers = {name: low_rank.Factors(shapes[name + B], shapes[name + A]) for name in names}
    _refuse_huge(key, sum(len(own.up) + own.down.shape[1] for own in layers.values()))
    return Products(
        {n: normals(key, f"{n}/out", key.bits, len(own.up)) for n, own in layers.items()},
        {n: normals(key, f"{n}/in", key.bits, own.down.shape[1]) for n, own in layers.items()},
        {name: own.rank for name, own in layers.items()},
    )


def _refuse_huge(key: OwnershipKey, numbers: int) -> None:
    """Raise UserError if the directions of so many numbers would need too much memory."""
    if numbers * key.bits > MOST_NUMBERS:
        raise UserError(
            f"the key of {key.owner:.80} has {key.bits} directions in {numbers:,} numbers, more "
            f"than {MOST_NUMBERS:,} together; make a key with fewer --bits, or whose --tensors "
            "names fewer of them."
        )
