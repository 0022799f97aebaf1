"""Inner products and distances of the updates of a round; all rules that compare updates use them.

Updates whose content is "factors" are LoRA's factors themselves, for an algorithm that averages
products. There the product s·B·A is what counts, since many pairs of factors have the same product.
Their inner product is ⟨B₁·A₁, B₂·A₂⟩ = ⟨B₁ᵀ·B₂, A₁·A₂ᵀ⟩, so no product is formed.

Any other update is one long vector of all that is sent. For LoRA under an algorithm that averages
changes these are the changes of A and of B; that of their product also depends on the factors
before the round, which a rule does not see.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hanse.federation.robust.received import Received
from hanse.tensors import low_rank
from hanse.tensors.low_rank import A, B, Factors
from hanse.tensors.named import blocks


def inner_products(received: Received) -> Tensor:
    """(n, n) float64 inner products of the updates; what one client lacks counts as zero."""
    clients = len(received)
    total = torch.zeros(clients, clients, dtype=torch.float64)
    for part in _parts(received):
        total += part
    return (total + total.T) / 2  # equal distances there and back, whatever the rounding


def squared_distances(products: Tensor) -> Tensor:
    """(n, n) squared distances, from inner products."""
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0)
    return distances.fill_diagonal_(0)


def _parts(received: Received) -> Iterator[Tensor]:
    """The (n, n) inner products of each tensor, or of each product of factors."""
    names = dict.fromkeys(name for update in received.updates for name in update.tensors)
    layers = [name.removesuffix(A) for name in names if name.endswith(A)]
    if received.algorithm.payload != "factors":
        layers = []
    for layer in layers:
        yield _of_factors(received, layer)
        del names[layer + A], names[layer + B]
    for name in names:
        yield _of_tensors(received, name)


def _of_tensors(received: Received, name: str) -> Tensor:
    holders = _holders(received, name)
    tensors = [received.updates[holder].tensors[name] for holder in holders]
    total = torch.zeros(len(holders), len(holders), dtype=torch.float64)
    for column in zip(*map(blocks, tensors), strict=True):
        rows = torch.stack(column).double()
        total += rows @ rows.T
    return _placed(total, holders, len(received))


def _of_factors(received: Received, layer: str) -> Tensor:
    """The inner products of a layer's products, each with its client's scaling s = α/r."""
    holders = _holders(received, layer + A)
    tensors = [received.updates[holder].tensors for holder in holders]
    scalings = [received.profiles[holder].numbers.get("scaling", 1.0) for holder in holders]
    scale = torch.tensor(scalings, dtype=torch.float64)
    factors = [Factors(own[layer + B], own[layer + A]) for own in tensors]
    products = low_rank.inner_products(factors) * scale[:, None] * scale
    return _placed(products, holders, len(received))


def _holders(received: Received, name: str) -> list[int]:
    """The places of the clients whose update has a tensor of this name."""
    return [place for place, update in enumerate(received.updates) if name in update.tensors]


def _placed(products: Tensor, holders: list[int], clients: int) -> Tensor:
    """The inner products of some clients among those of all; the others' are zero."""
    total = torch.zeros(clients, clients, dtype=torch.float64)
    place = torch.tensor(holders)
    total[place[:, None], place] = products
    return total
