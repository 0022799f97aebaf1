"""Every codec of the package: speed on one thread, bytes, error, and memory beside the result.

Two updates of float32, normal numbers times 0.001:

large  16 matrices of 1,024 × 1,024: 64 MiB
lora   LoRA of rank 8 on all linear layers of SmolLM2-135M: 420 tensors, 9.8 MB

MB/s are those of the update in float32 in CPU seconds, which other programs hardly change, each the
mean of as many calls as fit into SECONDS.
Bytes are those of whole messages, as shares of the message without codec. The error is the norm of
what is lost ÷ the norm of the update. Extra memory is what the process has resident at most beyond
the result and what it had before. Codecs that need a setting, such as a trained file, are left out.
Gate: quantizers encode and decode at least 200 MB/s. Run it with OMP_NUM_THREADS=1. Writes
benchmarks/results/codec_speed.json. Linux only: memory is read from /proc.
"""

import argparse
import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measured import keep

from hanse import registry
from hanse.errors import UserError
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Reply, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, layout, norm, subtract

FOLDER = "federation/compression"
STOCHASTIC = {"rounding": "stochastic"}
VARIANTS: Mapping[str, list[dict[str, Any]]] = {n: [STOCHASTIC] for n in ("int8", "int4", "nf4")}
CONTEXT = RoundContext(0, 1, "silo-1", rounds=3)
SECONDS = 0.6
GATE = 200  # MB/s
MATRICES = {
    **dict.fromkeys(("self_attn.q", "self_attn.o"), (576, 576)),
    **dict.fromkeys(("self_attn.k", "self_attn.v"), (576, 192)),
    **dict.fromkeys(("mlp.gate", "mlp.up"), (576, 1536)),
    "mlp.down": (1536, 576),
}


def large(count: int) -> dict[str, tuple[int, ...]]:
    """The shapes of so many large matrices."""
    return {f"layers.{number}.weight": (1024, 1024) for number in range(count)}


def lora(rank: int = 8) -> dict[str, tuple[int, ...]]:
    """The shapes of LoRA's factors for SmolLM2-135M."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(30):
        for matrix, (inner, outer) in MATRICES.items():
            name = f"base_model.model.model.layers.{layer}.{matrix}_proj.lora_"
            shapes |= {f"{name}A.weight": (rank, inner), f"{name}B.weight": (outer, rank)}
    return shapes


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """An update with these shapes, always the same one."""
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) * 1e-3 for name, shape in shapes.items()}


def codecs() -> dict[str, Transform]:
    """All codecs that can do with their defaults, and their variants, by name."""
    parts: dict[str, Transform] = {}
    for name in registry.names(FOLDER):
        for settings in [{}, *VARIANTS.get(name, [])]:
            try:
                codec = registry.build(FOLDER, {name: settings})
            except UserError:  # a setting is missing
                continue
            parts[", ".join([name, *map(str, settings.values())])] = codec
    return parts


def measured(codec: Transform, tensors: Tensors) -> dict[str, Any]:
    """The figures of one codec on one update."""
    update, state = Update(tensors, {"loss": 0.1}), codec.init(layout(tensors))
    size = _size(tensors)
    done: dict[str, Update] = {}

    def encode() -> None:
        done["message"] = codec.encode(update, {}, state, CONTEXT)

    def decode() -> None:
        result = codec.decode(done["message"], state, CONTEXT)
        done["result"] = replace(result, tensors=dict(result.tensors))  # some decode when asked

    extra = {"encode": _extra(encode), "decode": _extra(decode)}
    extra["encode"] -= _size(done["message"].tensors)
    extra["decode"] -= _size(done["result"].tensors)
    seconds = {"encode": _cpu_seconds(encode), "decode": _cpu_seconds(decode)}
    return {
        "cpu_seconds": seconds,
        "mb_per_second": {way: size / 1e6 / each for way, each in seconds.items()},
        "bytes_share": _message(done["message"]) / _message(update),
        "relative_error": norm(subtract(tensors, done["result"].tensors)) / norm(tensors),
        "extra_bytes": extra,
    }


def _cpu_seconds(work: Callable[[], None]) -> float:
    """Of one call; the clock of CPU seconds is too coarse for a short one."""
    cpu, wall, calls = time.process_time(), time.perf_counter(), 0
    while not calls or time.perf_counter() - wall < SECONDS:
        work()
        calls += 1
    return (time.process_time() - cpu) / calls


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _message(update: Update) -> int:
    """The bytes of the whole reply with an update."""
    return len(Reply("silo-1", "train", 1, update).pack())


def _extra(work: Callable[[], None]) -> int:
    """Bytes that are resident at most while it works, beyond those before."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not resident
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])


def main() -> None:
    """Measure all codecs, print their figures, keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one large matrix")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    updates = {"large": drawn(large(1 if short else 16)), "lora": drawn(lora())}
    parts = codecs()
    rows: dict[str, dict[str, Any]] = {}
    for name, codec in parts.items():
        rows[name] = {kind: measured(codec, tensors) for kind, tensors in updates.items()}
        for kind, row in rows[name].items():
            speed = ", ".join(f"{way} {value:,.0f}" for way, value in row["mb_per_second"].items())
            print(
                f"{name:18} {kind:6} {speed} MB/s, {row['bytes_share']:.2%} of the bytes, error "
                f"{row['relative_error']:.2g}, extra "
                f"{max(row['extra_bytes'].values()) / 2**20:.1f} MiB",
                flush=True,
            )
    left_out = [name for name in registry.names(FOLDER) if name not in parts]
    print(keep("codec_speed", {"codecs": rows, "left_out": left_out, "gate_mb_per_second": GATE}))


if __name__ == "__main__":
    main()
