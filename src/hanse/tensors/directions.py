"""Random directions of a whole model, which a key draws anew each time and nobody stores.

All weights, in the order of their names, are one long vector. A direction is a vector of standard
normals as long as this one: the sequence of its key (`philox`). Weights change in place, chunk by
chunk, so that a change of a model takes a few megabytes beside the model.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors.named import Tensors
from hanse.tensors.philox import normals

# Weights whose change is in memory at once. It takes about 3 MB; with more, each chunk would fetch
# its memory from the system, which doubles the time.
CHUNK = 2**16
SEED, AMOUNTS = "seed", "amounts"  # names of the tensors of a change
MOST = 65_536  # amounts of a change


def add(weights: Mapping[str, Tensor], seed: int, amounts: Mapping[int, float]) -> None:
    """Add Σ aⱼ·z(seed, j) to the weights in place, over the amounts aⱼ by the direction's index j.

    weights: contiguous tensors on one device. The sum is in float64, so that all amounts together
    are rounded once; each weight is read and written once.
    """
    if not amounts:
        return
    for start, pieces in _chunks(weights):
        sizes = [len(piece) for piece in pieces]
        device, change = pieces[0].device, None
        for index, amount in amounts.items():
            direction = normals((seed, index), start, sum(sizes), device)
            if change is None:
                change = direction.mul_(amount)
            else:
                change.add_(direction, alpha=amount)
        assert change is not None  # there are amounts
        for piece in pieces:
            part, change = change[: len(piece)], change[len(piece) :]
            piece.add_(part)


def read(change: Tensors) -> tuple[int, dict[int, float]]:
    """The seed of a change, and its amounts other than 0 by the direction's index.

    change: `seed`, (1,) int32, and `amounts`, (K,) finite; empty for no change. Raises UserError
        for anything else.
    """
    if not change:
        return 0, {}
    seed, amounts = change.get(SEED), change.get(AMOUNTS)
    if (
        seed is None
        or amounts is None
        or change.keys() != {SEED, AMOUNTS}
        or (seed.shape, seed.dtype) != ((1,), torch.int32)
        or int(seed) < 0
        or amounts.dim() != 1
        or not amounts.is_floating_point()
        or len(amounts) > MOST
        or not bool(amounts.isfinite().all())
    ):
        raise UserError(
            f"a change of all weights is a seed and at most {MOST:,} finite amounts, but "
            f"{', '.join(sorted(change))} came; look after the file or the server "
            "that it is from."
        )
    return int(seed), nonzero(amounts)


def nonzero(amounts: Tensor) -> dict[int, float]:
    """The amounts other than 0 in a tensor (K,), by index."""
    return {index: amount for index, amount in enumerate(amounts.tolist()) if amount}


def _chunks(weights: Mapping[str, Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
    """The weights in chunks: the first one's place in the vector, and views that make the chunk."""
    start, pieces, size = 0, list[Tensor](), 0
    for name in sorted(weights):
        left = weights[name].detach().view(-1)
        while len(left):
            piece, left = left[: CHUNK - size], left[CHUNK - size :]
            pieces.append(piece)
            size += len(piece)
            if size == CHUNK:
                yield start, pieces
                start, pieces, size = start + CHUNK, [], 0
    if pieces:
        yield start, pieces
