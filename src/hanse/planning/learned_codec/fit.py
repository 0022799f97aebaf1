"""The fit of a learned codec: principal components, then Adam on the whole autoencoder.

CG-FedLLM's phase TGAP (2405.13746) trains a network from random weights. This reconstruction begins
with the best linear code of the blocks, and the hidden layers begin with no effect: before the
first epoch it decodes as principal components do.
"""

import logging

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from hanse.tensors.autoencoder import Autoencoder

LEARNING_RATE = 2e-4  # of the paper
BATCH = 64  # blocks
OVERSAMPLING, ITERATIONS = 8, 4  # of the search for principal components

log = logging.getLogger(__name__)


def fit(blocks: Tensor, code: int, epochs: int, seed: int) -> Autoencoder:
    """The autoencoder with codes of K numbers that fits scaled blocks (n, B).

    The same arguments give the same matrices on one machine.
    """
    draw = torch.Generator().manual_seed(seed)
    network = _start(principal_components(blocks, code, draw), draw)
    matrices = [matrix.requires_grad_() for matrix in network.tensors.values()]
    optimizer = torch.optim.Adam(matrices, lr=LEARNING_RATE)
    for epoch in range(1, epochs + 1):
        total, order = 0.0, torch.randperm(len(blocks), generator=draw)
        for rows in torch.split(order, BATCH):
            batch = blocks[rows]
            loss = mse_loss(network.to_blocks(network.to_codes(batch)), batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        log.info("epoch %d of %d: squared error %.4f", epoch, epochs, total / len(blocks))
    return Autoencoder.read({name: t.detach() for name, t in network.tensors.items()})


def principal_components(rows: Tensor, number: int, draw: torch.Generator) -> Tensor:
    """The first right singular vectors of rows (n, B) as columns (B, number).

    By subspace iteration (Halko et al. 2011, 0909.4061, algorithm 4.4). Rows of a lower rank leave
    the last columns to chance.
    """
    width = min(rows.shape[1], number + OVERSAMPLING)
    basis = random_directions(rows.shape[1], width, draw)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    triangle = torch.linalg.qr(rows @ basis).R
    vectors: Tensor = torch.linalg.svd(triangle, full_matrices=True).Vh
    return basis @ vectors.T[:, :number]


def random_directions(block: int, number: int, draw: torch.Generator) -> Tensor:
    """Random orthonormal columns (B, number)."""
    directions: Tensor = torch.linalg.qr(torch.randn(block, number, generator=draw)).Q
    return directions


def _start(basis: Tensor, draw: torch.Generator) -> Autoencoder:
    """The linear code of a basis (B, K), with K hidden numbers that have no effect yet."""
    block, code = basis.shape

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).mul_(block**-0.5)

    project = Autoencoder.projection(basis)
    return Autoencoder(
        encode=project.encode,
        encode_hidden=drawn(code, block),
        encode_out=torch.zeros(code, code),
        decode=project.decode,
        decode_hidden=drawn(code, code),
        decode_out=torch.zeros(block, code),
    )
