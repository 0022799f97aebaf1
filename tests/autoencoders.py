"""Autoencoders whose codes are known."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from hanse.tensors.autoencoder import Autoencoder


def random_code(block: int, code: int) -> Autoencoder:
    """The projection on random directions."""
    drawn = torch.randn(block, code, generator=torch.Generator().manual_seed(block))
    return Autoencoder.projection(torch.linalg.qr(drawn).Q)


def identity(block: int) -> Autoencoder:
    """A code that is the block itself."""
    return Autoencoder.projection(torch.eye(block))


def saved(folder: Path, network: Autoencoder) -> str:
    """The name of a file in a folder with this autoencoder, as a codec's setting has it."""
    file = folder / "codec.safetensors"
    save_file(dict(network.tensors), file)
    return str(file)
