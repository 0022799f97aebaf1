"""A learned codec beside others of equal size, on the changes of clients held out of the fit."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from hanse.federation.compression.cg_fedllm import FELL_BACK, GROUP, INT4, CGFedLLM
from hanse.federation.messages import Update
from hanse.planning.learned_codec.collected_changes import Changes
from hanse.planning.learned_codec.fit import principal_components, random_directions
from hanse.randomness import RoundContext
from hanse.tensors.autoencoder import Autoencoder
from hanse.tensors.blockwise import even_codes, even_levels

CONTEXT = RoundContext(0)


@dataclass(frozen=True)
class Figures:
    """Means over changes.

    cosine: of a change with what is decoded (the innovation cosine).
    snr: signal to noise in decibels, 10·log10(Σ x² / Σ (x − x̂)²). The published figure divides by
        the mean of the squared errors, and not by their sum, and grows with the number of numbers.
    bytes: of a change as it is encoded. fell_back: the share of its blocks sent as int4.
    """

    cosine: float
    snr: float
    bytes: float
    fell_back: float = 0.0


def compare(
    network: Autoencoder, fitted: Changes, held: Changes, gate: float, seed: int
) -> dict[str, Figures]:
    """Figures of the learned codec and of others of its size, by name, on held-out changes."""
    draw = torch.Generator().manual_seed(seed)
    code, blocks = network.code, held.unit.shape[1]
    size = blocks * (4 * code + 2)
    mean = fitted.unit.mean(0)
    principal = Autoencoder.projection(principal_components(fitted.blocks, code, draw))
    random = Autoencoder.projection(random_directions(network.block, code, draw))
    return {
        "learned": figures(held, by_blocks(held, network), size),
        "learned, as sent": as_sent(network, held, gate),
        "principal components": figures(held, by_blocks(held, principal), size),
        "mean of the fit": figures(held, lambda change: held.values(change, mean), 2 * blocks),
        "random projection": figures(held, by_blocks(held, random), size),
        "low rank of the reshaped change": figures(
            held, lambda change: low_rank(_numbers(held, change), size), size
        ),
        "int4": figures(held, lambda change: largest_as_int4(_numbers(held, change), size), size),
    }


def figures(held: Changes, decoded: Callable[[int], Tensor], size: float) -> Figures:
    """Figures of a codec. decoded: from a change's index to its decoded numbers."""
    pairs = [(_numbers(held, change), decoded(change)) for change in range(len(held.unit))]
    return Figures(fmean(_cosine(*p) for p in pairs), fmean(_decibels(*p) for p in pairs), size)


def by_blocks(held: Changes, network: Autoencoder) -> Callable[[int], Tensor]:
    """From a change's index to its numbers after an autoencoder, without gate."""
    return lambda change: held.values(
        change, network.to_blocks(network.to_codes(held.unit[change]))
    )


def as_sent(network: Autoencoder, held: Changes, gate: float) -> Figures:
    """Figures of the codec itself, whose blocks below the gate travel as int4."""
    codec = CGFedLLM("", gate)
    cosines, decibels, sizes, shares = [], [], [], []
    for change in range(len(held.unit)):
        numbers = _numbers(held, change)
        message = codec.encode(Update({"": numbers}), {}, network.tensors, CONTEXT)
        update = codec.decode(message, network.tensors, CONTEXT)
        cosines.append(_cosine(numbers, update.tensors[""]))
        decibels.append(_decibels(numbers, update.tensors[""]))
        sizes.append(sum(tensor.nbytes for tensor in message.tensors.values()))
        shares.append(update.numbers[FELL_BACK])
    return Figures(fmean(cosines), fmean(decibels), fmean(sizes), fmean(shares))


def low_rank(numbers: Tensor, size: int) -> Tensor:
    """Numbers (n,) as a matrix that is nearly square, by the factors that fit into `size` bytes.

    The matrix is none of the change's own: its rows run across the borders of tensors.
    """
    rows = next(side for side in range(math.isqrt(len(numbers)), 0, -1) if len(numbers) % side == 0)
    matrix = numbers.reshape(rows, -1)
    rank = min(rows, size // (4 * sum(matrix.shape)))
    vectors = principal_components(matrix, rank, torch.Generator().manual_seed(0))
    return (matrix @ vectors @ vectors.T).reshape(-1)


def largest_as_int4(numbers: Tensor, size: int) -> Tensor:
    """The groups of the largest norm as int4, as many as fit into `size` bytes; the others as 0.

    A group takes half a byte for each number, two for its step, and four for its place.
    """
    groups = numbers.reshape(-1, GROUP)
    most = min(len(groups), size // (GROUP * INT4.bits // 8 + 6))
    places = groups.norm(dim=1).topk(most).indices
    codes, largest = even_codes(groups[places], INT4.bits)
    decoded = torch.zeros_like(groups)
    decoded[places] = even_levels(INT4.bits)[codes.long()] * largest.unsqueeze(1)
    return decoded.reshape(-1)


def table(results: Mapping[str, Figures]) -> list[tuple[str, ...]]:
    """The figures as rows of text: name, cosine, decibels, bytes, share of int4."""
    return [
        (name, f"{f.cosine:.3f}", f"{f.snr:.1f}", f"{f.bytes:,.0f}", f"{100 * f.fell_back:.0f} %")
        for name, f in results.items()
    ]


def _numbers(held: Changes, change: int) -> Tensor:
    return held.values(change, held.unit[change])


def _cosine(a: Tensor, b: Tensor) -> float:
    norms = float(a.double().norm() * b.double().norm())
    return float(a.double() @ b.double()) / norms if norms else 0.0


def _decibels(signal: Tensor, decoded: Tensor) -> float:
    """Signal to noise of decoded numbers, at most 300 dB."""
    power = float(signal.double().square().sum())
    noise = float((signal.double() - decoded.double()).square().sum())
    return 10 * math.log10(max(power, 1e-300) / max(noise, 1e-30 * power, 1e-300))
