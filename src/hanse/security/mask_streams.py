"""Masks: AES-256 in counter mode as uniform random words, added to and subtracted from numbers.

The seed of 32 bytes is the AES key, and the counter starts at 0. This is safe because a seed masks
one vector only: two vectors under one seed would tell their difference. Callers derive seeds with
the run, the round and the clients in the context (`round_keys`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

SEED = 32  # bytes
BLOCK = 16  # bytes of an AES block
CHUNK = (
    512 * 1024
)  # bytes of the stream at a time: with the zeros and the words they fit in a cache
TYPES = ("<u2", "<u4", "<u8")

Words = NDArray[np.unsignedinteger[Any]]

_ZEROS = bytes(CHUNK)  # encrypted zeros are the stream


def add(words: Sequence[Words], seed: bytes, sign: int) -> None:
    """Add the stream of a seed to arrays in place (sign 1), or subtract it (sign −1).

    words: arrays of any shape, uint16, uint32 or uint64, little endian, writable and C-contiguous.
    One stream runs through them in order, each word taking its next bytes; sums are modulo 2**16,
    2**32 or 2**64. Raises ValueError before any array is changed if an argument does not fit.
    """
    if len(seed) != SEED:
        raise ValueError(f"the seed of a mask has {SEED} bytes, not {len(seed)}")
    if sign not in (1, -1):
        raise ValueError(f"a mask is added (1) or subtracted (-1), not {sign!r}")
    for array in words:
        _refuse(array)
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(BLOCK))).encryptor()
    buffer = np.empty(CHUNK + BLOCK, np.uint8)  # update_into asks for almost a block of room
    for array in words:
        _add(array.reshape(-1), stream, buffer, np.add if sign == 1 else np.subtract)


def _add(flat: Words, stream: CipherContext, buffer: NDArray[np.uint8], change: np.ufunc) -> None:
    size = CHUNK // flat.itemsize  # words
    mask = buffer[:CHUNK].view(flat.dtype)
    zeros = memoryview(_ZEROS)
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        stream.update_into(zeros[: part.nbytes], buffer.data)
        change(part, mask[: len(part)], out=part)


def _refuse(array: Words) -> None:
    if array.dtype.str not in TYPES:
        raise ValueError(f"masked words are uint16, uint32 or uint64, not {array.dtype}")
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError("masked words lie one after another in memory that can be changed")
