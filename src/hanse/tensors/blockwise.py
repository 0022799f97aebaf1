"""Numbers of many tensors in blocks: a code of few bits for each number, a scale for each block.

Each tensor begins a block and a byte of its own; its last block may be shorter. The first code of a
byte stands in its lowest bits.

The work is done in groups of about 65,000 numbers, which fit into a processor's cache. A block that
is shorter is filled up with zeros, and what was filled up is cut off again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

GROUP = 2**16  # numbers

# From blocks (R, size) and their true lengths (R,) to codes (R, size) uint8 and scales (R,).
Quantize = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Blocks:
    """Blocks of so many numbers, a multiple of 8, with codes of 1, 2, 4 or 8 bits."""

    size: int
    bits: int

    def code_bytes(self, counts: Iterable[int]) -> int:
        """The bytes of the codes of tensors with so many numbers."""
        return sum(self._bytes(count) for count in counts)

    def count(self, counts: Iterable[int]) -> int:
        """The number of blocks, and of scales, of tensors with so many numbers."""
        return sum(-(-count // self.size) for count in counts)

    def encode(self, tensors: Sequence[Tensor], quantize: Quantize) -> tuple[Tensor, Tensor]:
        """The codes of all tensors as bytes, and the scales of their blocks as float32."""
        counts = [tensor.numel() for tensor in tensors]
        codes = torch.empty(self.code_bytes(counts), dtype=torch.uint8)
        scales = torch.empty(self.count(counts))
        byte = block = 0
        for group in self._groups(tensors):
            lengths = [len(piece) for piece in group]
            rows = _rows([piece.float() for piece in group], self.size)
            row_codes, row_scales = quantize(rows, _row_lengths(lengths, self.size))
            packed = pack(row_codes, self.bits)
            for part in _cut(packed, map(self._bytes, lengths)):
                codes[byte : byte + len(part)] = part
                byte += len(part)
            scales[block : block + len(rows)] = row_scales
            block += len(rows)
        return codes, scales

    def decode(
        self, codes: Tensor, scales: Tensor, levels: Tensor, results: Sequence[Tensor]
    ) -> None:
        """Write the numbers scale · levels[code] into contiguous tensors, as many as were encoded.

        levels: the value of each code, (2^bits,).
        """
        byte_levels = _byte_levels(levels, self.bits)
        byte = block = 0
        for group in self._groups(results):
            sizes = [self._bytes(len(piece)) for piece in group]
            ends = accumulate(sizes, initial=byte)
            rows = _rows([codes[a:b] for a, b in pairwise(ends)], self.size * self.bits // 8)
            values = byte_levels.index_select(0, rows.flatten().int()).view(torch.float32)
            values = values.view(-1, self.size) * scales[block : block + len(rows), None]
            for piece, numbers in zip(group, _cut(values, map(len, group)), strict=True):
                piece.copy_(numbers)
            byte += sum(sizes)
            block += len(rows)

    def _bytes(self, count: int) -> int:
        """The bytes of the codes of one tensor."""
        return -(-count * self.bits // 8)

    def _groups(self, tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """Flat views of all tensors in order, in groups; tensors are cut between blocks only."""
        step = self.size * max(GROUP // self.size, 1)
        group: list[Tensor] = []
        blocks = 0
        for tensor in tensors:
            for piece in torch.split(tensor.reshape(-1), step):
                group.append(piece)
                blocks += self.count([len(piece)])
                if blocks * self.size >= GROUP:
                    yield group
                    group, blocks = [], 0
        if group:
            yield group


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (R, N) of so many bits, one in each byte, as (R, N·bits/8) full bytes."""
    while bits < 8:
        pairs = codes.view(torch.int16)  # the second code of each pair is in the higher byte
        codes, bits = (pairs | pairs >> (8 - bits)).to(torch.uint8), 2 * bits
    return codes


def relative(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of each row (R, N) ÷ the largest absolute one, and these (R,).

    A row of zeros stays one. A row with a number that is not finite has a scale that is not finite.
    """
    largest = rows.abs().amax(dim=1)
    divisors = torch.where(largest == 0, 1.0, largest)
    return (rows / divisors[:, None]).nan_to_num_(0.0), largest


def even_codes(
    rows: Tensor, bits: int, draws: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Codes of equal steps from -absmax to absmax, and the absmax of each row.

    A code is the nearest whole number of -L to L, with L = 2^(bits-1) - 1, so that the error is at
    most absmax/(2L). With draws it is one of the two nearest, whose mean over draws is exact.
    """
    most = 2 ** (bits - 1) - 1
    numbers, scales = relative(rows)
    numbers *= most
    if draws is None:
        numbers.round_()
    else:  # the sum may be rounded up to most + 1
        numbers.add_(torch.rand(rows.shape, generator=draws)).floor_().clamp_(max=most)
    codes = numbers.to(torch.int8).view(torch.uint8)
    return (codes if bits == 8 else codes & (2**bits - 1)), scales


def even_levels(bits: int) -> Tensor:
    """The values of `even_codes` ÷ absmax; NaN for the one code that is never used."""
    half = 2 ** (bits - 1)
    codes = torch.arange(2**bits)
    levels = torch.where(codes < half, codes, codes - 2 * half) / (half - 1)
    return torch.where(codes == half, torch.nan, levels)


def _row_lengths(lengths: Sequence[int], size: int) -> Tensor:
    """The numbers of each row of pieces with these lengths, before they are filled up."""
    row_counts = [-(-length // size) for length in lengths]
    result = torch.full((sum(row_counts),), size)
    for length, end in zip(lengths, accumulate(row_counts), strict=True):
        if length % size:
            result[end - 1] = length % size
    return result


def _rows(pieces: Sequence[Tensor], width: int) -> Tensor:
    """The pieces one after another, each filled up with zeros to whole rows: (R, width)."""
    filled = [pad(p, (0, -len(p) % width)) if len(p) % width else p for p in pieces]
    return torch.cat(filled).view(-1, width)


def _cut(rows: Tensor, lengths: Iterable[int]) -> Iterator[Tensor]:
    """The pieces with these lengths, of which rows were made."""
    flat, start = rows.view(-1), 0
    for length in lengths:
        yield flat[start : start + length]
        start += -(-length // rows.shape[1]) * rows.shape[1]


def _byte_levels(levels: Tensor, bits: int) -> Tensor:
    """The values of all codes in each byte, as rows of float32 or as int64 with two of them.

    A row of one number would be copied four times as slowly as a number without dimension.
    """
    shifts = torch.arange(0, 8, bits)
    values = levels[torch.arange(256)[:, None] >> shifts & (2**bits - 1)]
    return values.flatten() if bits == 8 else values.view(torch.int64).squeeze(1)
