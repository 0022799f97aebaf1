"""The first singular vectors of a matrix: exact where that is cheap, else by subspace iteration.

The iteration is the randomized one of Halko, Martinsson and Tropp (2011, 0909.4061) with more
columns than wanted; it ends when the singular values no longer change. Its random start is always
the same, but processors and numbers of threads round differently. If another machine needs the same
vectors, they must be sent to it.
"""

import torch
from torch import Tensor

EXACT = 256  # rows or columns up to which all singular vectors are computed
SPARE = 16  # the least number of columns beyond those that are wanted
SETTLED = 3e-5  # relative change of the singular values at which the iteration ends
MOST = 100  # iterations


def first_vectors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first U (m, r), singular values (r,) and V (n, r) of an (m, n) matrix.

    Signs are chosen so that the largest entry of each column of V is positive.
    """
    columns = rank + max(SPARE, rank)
    least = min(matrix.shape)
    if least <= EXACT or 2 * columns >= least:
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
        v = vh.T
    else:
        u, values, v = _iterated(matrix, rank, columns)
    u, values, v = u[:, :rank], values[:rank], v[:, :rank]
    signs = v.gather(0, v.abs().argmax(dim=0, keepdim=True)).sign()
    return u * signs, values, v * signs


def _iterated(matrix: Tensor, rank: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Subspace iteration: powers of matrixᵀ·matrix on a random start, orthogonal at each step."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], columns, generator=draw).to(matrix)
    right = torch.linalg.qr(start).Q
    before = torch.zeros(rank).to(matrix)
    for _ in range(MOST):
        left = torch.linalg.qr(matrix @ right).Q
        right, small = torch.linalg.qr(matrix.T @ left)
        values = torch.linalg.svdvals(small)[:rank]
        if bool(((values - before).abs() <= SETTLED * values).all()):
            break
        before = values
    u, values, vh = torch.linalg.svd(small.T, full_matrices=False)  # matrix ≈ left·smallᵀ·rightᵀ
    return left @ u, values, right @ vh.T
