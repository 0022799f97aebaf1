"""Autoencoders whose codes are known."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hanse.tensors.autoencoder import Autoencoder


def linear_code(basis: Tensor) -> Autoencoder:
    """The projection on the columns of an orthonormal basis (B, K)."""
    block, code = basis.shape
    return Autoencoder(
        encode=basis.T.clone(memory_format=torch.contiguous_format),
        encode_hidden=torch.zeros(1, block),
        encode_out=torch.zeros(code, 1),
        decode=basis.contiguous(),
        decode_hidden=torch.zeros(1, code),
        decode_out=torch.zeros(block, 1),
    )


def random_code(block: int, code: int) -> Autoencoder:
    """The projection on random directions."""
    drawn = torch.randn(block, code, generator=torch.Generator().manual_seed(block))
    return linear_code(torch.linalg.qr(drawn).Q)


def identity(block: int) -> Autoencoder:
    """A code that is the block itself."""
    return linear_code(torch.eye(block))


def saved(folder: Path, network: Autoencoder) -> str:
    """The name of a file in a folder with this autoencoder, as a codec's setting has it."""
    file = folder / "codec.safetensors"
    save_file(dict(network.tensors), file)
    return str(file)
