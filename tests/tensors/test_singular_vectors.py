"""The first singular vectors, beside the whole decomposition."""

import pytest
import torch

from hanse.tensors.singular_vectors import first_vectors

DRAW = torch.Generator().manual_seed(3)
FLAT = torch.randn(500, 700, generator=DRAW)  # the hardest: no value stands out
DECAYING = FLAT * (1.0 + torch.arange(700)).rsqrt()


@pytest.mark.parametrize("rank", [1, 8, 64, 300])
@pytest.mark.parametrize("matrix", [FLAT, FLAT.T, DECAYING, FLAT[:40]], ids=lambda m: str(m.shape))
def test_values_and_vectors(matrix: torch.Tensor, rank: int) -> None:
    rank = min(rank, *matrix.shape)
    u, values, v = first_vectors(matrix, rank)
    wanted = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(values.double(), wanted[:rank], rtol=1e-3, atol=0)
    eye = torch.eye(rank)
    torch.testing.assert_close(u.T @ u, eye, atol=1e-4, rtol=0)
    torch.testing.assert_close(v.T @ v, eye, atol=1e-4, rtol=0)
    # No product of this rank is nearer (Eckart and Young): the rest is what the values leave out.
    rest = (matrix.double() - (u * values).double() @ v.double().T).norm()
    assert float(rest) <= 1.001 * float(wanted[rank:].norm()) + 1e-3
    assert bool((v.gather(0, v.abs().argmax(0, keepdim=True)) > 0).all())
