"""DEFLATE (RFC 1951): all tensors as one compressed blob, without loss."""

import zlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from hanse.federation.codecs.lossless import Buffer, Lossless
from hanse.tensors.serialization import MessageError

RAW = -zlib.MAX_WBITS  # a stream without header and checksum


@dataclass(frozen=True)
class Deflate(Lossless):
    """All tensors as one blob of raw DEFLATE, bit for bit; slower than zstd, and known everywhere.

    level: 1 (fastest) to 9 (smallest).
    """

    linear: ClassVar[bool] = False
    level: Annotated[int, Field(ge=1, le=9)] = 6

    def compress(self, data: Buffer) -> bytes:
        """One stream. Some builds of zlib lengthen noise by an eighth; it is then stored."""
        compressed = _deflate(data, self.level)
        return compressed if len(compressed) <= self.most(len(data)) else _deflate(data, 0)

    def decompress(self, data: Buffer, size: int) -> bytes:
        """The bytes of a stream that ends where the data end."""
        stream = zlib.decompressobj(RAW)
        try:
            result = stream.decompress(data, size + 1)
        except zlib.error as error:
            raise MessageError(f"the blob cannot be inflated: {error}") from None
        if len(result) != size or not stream.eof or stream.unused_data:
            raise MessageError(f"the blob is no stream of DEFLATE that gives {size:,} bytes")
        return result

    def most(self, size: int) -> int:
        """The bytes of a stream of stored blocks of at least 16,383 bytes (RFC 1951, 3.2.4)."""
        return size + 5 * (size // 16_383 + 1) + 8


def _deflate(data: Buffer, level: int) -> bytes:
    """One raw stream."""
    stream = zlib.compressobj(level, zlib.DEFLATED, RAW)
    return stream.compress(data) + stream.flush()
