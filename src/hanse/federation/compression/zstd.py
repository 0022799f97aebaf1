"""Zstandard (RFC 8878): all tensors as one compressed blob, without loss."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import zstandard
from pydantic import Field

from hanse.federation.codecs.lossless import Buffer, Lossless
from hanse.tensors.serialization import MessageError


@dataclass(frozen=True)
class Zstd(Lossless):
    """All tensors as one blob of zstd, bit for bit; more than 200 MB/s up to level 3.

    level: 1 (fastest) to 19 (smallest).
    """

    linear: ClassVar[bool] = False
    level: Annotated[int, Field(ge=1, le=19)] = 3

    def compress(self, data: Buffer) -> bytes:
        """One frame, which names the size of its content."""
        return zstandard.ZstdCompressor(level=self.level).compress(data)

    def decompress(self, data: Buffer, size: int) -> bytes:
        """The bytes of a frame that ends where the data end.

        The frame must name the expected size: the library takes memory for the size it names.
        """
        try:
            named = zstandard.get_frame_parameters(data).content_size
            if named != size:
                raise MessageError(f"a frame of zstd names {named:,} bytes, not {size:,}")
            result = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise MessageError(f"the blob cannot be decompressed: {error}") from None
        if len(result) != size:
            raise MessageError(f"the blob gives {len(result):,} bytes, not {size:,}")
        return result

    def most(self, size: int) -> int:
        """The library's ZSTD_COMPRESSBOUND."""
        return size + (size >> 8) + max(0, (2**17 - size) >> 11)
