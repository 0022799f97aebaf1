"""Aggregating LoRA factors exactly: stacked factors beside the dense product.

Ten clients of rank 16 for one matrix of 4,096 × 4,096, cut to rank 16 again, in two ways:

dense     Σ pₖBₖAₖ as a whole matrix, and its full singular value decomposition
factored  the clients' factors stacked, both sides brought into triangular form, and the small
          product between them decomposed (hanse.tensors.low_rank)

Seconds, medians over repeats; the dense way takes a minute each time, so the factored one, which
takes a fraction of a second, is repeated ten times as often. Extra memory is what the process has
resident at most beyond what it had before, in a process of its own for each way; it is compared
with the size of the stacked factors. Gates: factored at least 50 times as fast, extra memory at
most 3 times the stacked factors, the same to 1e-5 of the largest entry as the dense way in float64.
Writes benchmarks/results/aggregation.json. Linux only: memory is read from /proc.
"""

import argparse
import statistics
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
from measured import clock, keep
from torch import Tensor

from hanse.tensors import low_rank
from hanse.tensors.low_rank import Factors

SIZE, CLIENTS, RANK = 4096, 10, 16
STACKED = 4 * CLIENTS * RANK * 2 * SIZE  # bytes of all clients' factors


def parts(size: int) -> list[tuple[float, Factors]]:
    """The clients' weights and factors, drawn by a seed."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for client in range(CLIENTS):
        up = torch.randn(size, RANK, generator=draw) / RANK**0.5
        down = torch.randn(RANK, size, generator=draw) / size**0.5
        found.append(((client + 1) / sum(range(1, CLIENTS + 1)), Factors(up, down)))
    return found


def dense(own: list[tuple[float, Factors]]) -> Factors:
    """By the whole matrix."""
    first = own[0][1]
    whole = first.up.new_zeros(len(first.up), first.down.shape[1])
    for weight, part in own:
        whole.addmm_(part.up, part.down, alpha=weight)
    u, s, vh = torch.linalg.svd(whole)
    root = s[:RANK].sqrt()
    return Factors(u[:, :RANK] * root, root[:, None] * vh[:RANK])


def factored(own: list[tuple[float, Factors]]) -> Factors:
    """By the factors alone."""
    return low_rank.shortened(low_rank.stacked(own), RANK)[0]


WAYS: dict[str, Callable[[list[tuple[float, Factors]]], Factors]] = {
    "dense": dense,
    "factored": factored,
}


def extra(way: str, size: int) -> int:
    """Bytes that a way has resident at most, beyond what there was before."""
    own = parts(size)
    factored(parts(256))  # libraries prepare themselves
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    WAYS[way](own)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest entry."""
    return float((one - other).abs().max() / other.abs().max())


def main() -> None:
    """Measure both ways, print the ratios, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of the dense way")
    parser.add_argument("--short", action="store_true", help="512 × 512, once")
    chosen = parser.parse_args()
    size, repeats = (512, 1) if chosen.short else (SIZE, chosen.repeats)
    own = parts(size)
    results = {name: way(own).product() for name, way in WAYS.items()}  # and warm up
    truth = dense([(weight, part.to(torch.float64)) for weight, part in own]).product()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        seconds["dense"].append(clock(lambda: dense(own)))
        seconds["factored"] += [clock(lambda: factored(own)) for _ in range(10)]
    exact = low_rank.shortened(low_rank.stacked(own))[0].product()
    whole = torch.stack([weight * part.product() for weight, part in own]).sum(dim=0)
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {name: pool.apply(extra, (name, size)) for name in WAYS}
    result = {
        "size": size,
        "clients": CLIENTS,
        "rank": RANK,
        "seconds": seconds,
        "speedup": statistics.median(seconds["dense"]) / statistics.median(seconds["factored"]),
        "extra_bytes": memory,
        "extra_over_stacked": {
            name: used / (STACKED * size / SIZE) for name, used in memory.items()
        },
        "cut_apart": {name: apart(found, truth) for name, found in results.items()},
        "whole_apart": apart(exact, whole),
    }
    for name in ("speedup", "extra_over_stacked", "cut_apart", "whole_apart"):
        print(name, result[name])
    print(keep("aggregation", result))


if __name__ == "__main__":
    main()
