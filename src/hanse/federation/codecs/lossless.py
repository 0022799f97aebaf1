"""The common half of lossless codecs: all tensors of an update as one compressed blob."""

import struct
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hanse.federation.interfaces.declarations import PAYLOADS, Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors import byte_planes
from hanse.tensors.named import Layout, Tensors, blob, layout_bytes
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import MOST_BYTES, Table

Buffer = bytes | memoryview
LARGEST = 2**40  # bytes of all tensors
HEADER = struct.Struct("<IQ")  # the sizes of the table and of all tensors, in bytes


@dataclass(frozen=True)
class Lossless(Transform):
    """All tensors of an update and their table, compressed into one blob.

    The blob begins with the size of what it decompresses to, which is checked before. Whatever
    gives more or fewer bytes, or has data behind its end, is refused.

    shuffle: whether bytes of equal significance stand together, by which floats compress better.
    """

    linear: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    stage: ClassVar[Stage | None] = "pack"
    payloads: ClassVar[tuple[str, ...]] = PAYLOADS
    shuffle: bool = True

    @abstractmethod
    def compress(self, data: Buffer) -> bytes:
        """Compress at least one byte."""

    @abstractmethod
    def decompress(self, data: Buffer, size: int) -> bytes:
        """Decompress to exactly `size` bytes, or raise MessageError; takes memory for no more."""

    @abstractmethod
    def most(self, size: int) -> int:
        """The most bytes that `compress` returns for `size` bytes."""

    @property
    def _name(self) -> str:
        return f"{type(self).__name__.lower()}.data"

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """One blob, at most as long as that of tensors that do not compress at all."""
        table = layout_bytes({"": Table.form(expected)})
        return {self._name: blob(HEADER.size + self.most(table + layout_bytes(expected)))}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with its tensors as one blob."""
        table_size, data = byte_planes.pack(update.tensors, self.shuffle)
        content = bytearray(HEADER.pack(table_size, len(data) - table_size))
        content += self.compress(data.data)
        return replace(update, tensors={self._name: torch.frombuffer(content, dtype=torch.uint8)})

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of all tensors, as the blob's header says."""
        return self._parts(update)[1]

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with its tensors again, bit for bit."""
        table_size, size, content = self._parts(update)
        data = self.decompress(content, table_size + size)
        tensors = byte_planes.unpack(memoryview(data), table_size, self.shuffle)
        return replace(update, tensors=tensors)

    def _parts(self, update: Update) -> tuple[int, int, memoryview]:
        """The sizes of the table and of all tensors, and the compressed bytes of both."""
        if update.tensors.keys() != {self._name}:
            raise MessageError(f"a packed update is one tensor, {self._name}")
        packed = update.tensors[self._name]
        if packed.dtype != torch.uint8 or packed.dim() != 1 or len(packed) < HEADER.size:
            raise MessageError(f"{self._name} came as {tuple(packed.shape)} {packed.dtype}")
        content = packed.cpu().contiguous().numpy().data
        table_size, size = HEADER.unpack_from(content)
        if table_size > MOST_BYTES or size > LARGEST:
            raise MessageError(f"{self._name} names {table_size:,} and {size:,} bytes")
        return table_size, size, content[HEADER.size :]
