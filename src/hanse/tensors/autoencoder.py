"""An autoencoder of blocks of numbers: what a codec and its fit share.

A block has B numbers, its code K. Both halves are a linear map and one hidden layer beside it,
f(x) = W·x + V·tanh(U·x). The published autoencoder (CG-FedLLM, 2405.13746) is a residual network
of convolutions over an image of 4096 × 2048 numbers, which suits one adapter of one model. This
reconstruction works on blocks of any adapter, and numbers of an adapter have no neighbourhood that
a convolution could use. With V = 0 it is the linear code, whose optimum is known. There are no
biases: f(-x) = -f(x), since a change is as likely as its negative.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hanse.tensors.named import Tensors

SMALLEST, LARGEST = -126, 126  # exponents of scales: 2^e and 2^-e are normal float32
POWERS = torch.tensor([math.ldexp(1.0, e) for e in range(SMALLEST, LARGEST + 1)])


@dataclass(frozen=True)
class Autoencoder:
    """The matrices of an encoder and a decoder, float32.

    encode: (K, B). encode_hidden: (H, B). encode_out: (K, H).
    decode: (B, K). decode_hidden: (H, K). decode_out: (B, H).
    """

    encode: Tensor
    encode_hidden: Tensor
    encode_out: Tensor
    decode: Tensor
    decode_hidden: Tensor
    decode_out: Tensor

    @staticmethod
    def read(tensors: Tensors) -> "Autoencoder":
        """The autoencoder in these tensors; raises ValueError if they are none."""
        names = tuple(Autoencoder.__dataclass_fields__)
        if missing := [name for name in names if name not in tensors]:
            raise ValueError(f"it has no tensor {missing[0]}")
        network = Autoencoder(**{name: tensors[name] for name in names})
        (code, block), hidden = _matrix(network.encode), len(network.encode_hidden)
        expected = {
            "encode": (code, block),
            "encode_hidden": (hidden, block),
            "encode_out": (code, hidden),
            "decode": (block, code),
            "decode_hidden": (hidden, code),
            "decode_out": (block, hidden),
        }
        for name, shape in expected.items():
            if tensors[name].shape != shape or tensors[name].dtype != torch.float32:
                raise ValueError(f"its {name} is no float32 matrix of {shape[0]} × {shape[1]}")
        return network

    @staticmethod
    def projection(basis: Tensor) -> "Autoencoder":
        """The linear code that projects on the columns of an orthonormal basis (B, K)."""
        block, code = basis.shape
        return Autoencoder(
            encode=basis.T.clone(memory_format=torch.contiguous_format),
            encode_hidden=torch.zeros(1, block),
            encode_out=torch.zeros(code, 1),
            decode=basis.clone(memory_format=torch.contiguous_format),
            decode_hidden=torch.zeros(1, code),
            decode_out=torch.zeros(block, 1),
        )

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The matrices by name: the inverse of `read`."""
        return {name: getattr(self, name) for name in Autoencoder.__dataclass_fields__}

    @property
    def block(self) -> int:
        """B, the numbers of a block."""
        return self.encode.shape[1]

    @property
    def code(self) -> int:
        """K, the numbers of a block's code."""
        return self.encode.shape[0]

    def to_codes(self, blocks: Tensor) -> Tensor:
        """The codes (n, K) of scaled blocks (n, B)."""
        return _half(blocks, self.encode, self.encode_hidden, self.encode_out)

    def to_blocks(self, codes: Tensor) -> Tensor:
        """The scaled blocks (n, B) of codes (n, K)."""
        return _half(codes, self.decode, self.decode_hidden, self.decode_out)


def _half(x: Tensor, linear: Tensor, hidden: Tensor, out: Tensor) -> Tensor:
    return x @ linear.T + torch.tanh(x @ hidden.T) @ out.T


def _matrix(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() != 2 or not tensor.numel():
        raise ValueError("its encode is no matrix")
    return tensor.shape[0], tensor.shape[1]


def count(numbers: int, block: int) -> int:
    """The number of blocks that so many numbers fill; the last may be padded."""
    return -(-numbers // block)


def split(flat: Tensor, block: int) -> Tensor:
    """Numbers (n,) as blocks (⌈n/B⌉, B); the last one is padded with zeros."""
    blocks = flat.new_zeros(count(len(flat), block) * block)
    blocks[: len(flat)] = flat
    return blocks.reshape(-1, block)


def exponents(blocks: Tensor) -> Tensor:
    """The exponent e of each block's scale: 2^e is the largest power of two up to its RMS.

    A scale that is a power of two is one byte, and scaling by it rounds nothing. The mean of a
    block is not subtracted: changes of weights have means near 0, and the code can carry it.
    """
    rms = blocks.double().square().mean(1).sqrt().nan_to_num(1.0, posinf=1.0)
    exponent = torch.frexp(rms).exponent - 1  # RMS = m·2^e with m in [0.5, 1)
    return exponent.clamp(SMALLEST, LARGEST).to(torch.int8)


def scales(exponents: Tensor) -> Tensor:
    """The scales 2^e (n, 1) of exponents (n,); raises IndexError beyond SMALLEST and LARGEST."""
    return POWERS[exponents.long() - SMALLEST].unsqueeze(1)
