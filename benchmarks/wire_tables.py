"""Tables of docs/wire.md from results: lines of Markdown."""

import statistics
from typing import Any


def codec_speed(result: dict[str, Any]) -> list[str]:
    """Speed, bytes and error of codecs, on large matrices and on the tensors of an adapter."""
    lines = [
        "| codec | bytes ÷ without | error ÷ update | MB/s encode, decode: 64 MiB "
        "| the same: LoRA, 420 tensors | MiB beside the result |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["codecs"].items():
        speeds = [
            ", ".join(_speed(row[kind]["mb_per_second"][way]) for way in ("encode", "decode"))
            for kind in ("large", "lora")
        ]
        extra = max(0, *row["large"]["extra_bytes"].values()) / 2**20
        lora = row["lora"]
        lines.append(
            f"| {name} | {100 * lora['bytes_share']:.1f} % | {lora['relative_error']:.2g} "
            f"| {speeds[0]} | {speeds[1]} | {extra:.1f} |"
        )
    about = (
        "The numbers are normal and independent: they have no structure that sparse, low-rank and "
        "lossless codecs could use."
    )
    return [*lines, "", about]


def fedkseed(result: dict[str, Any]) -> list[str]:
    """A step of FedKSeed beside a forward pass, and the loss before and after 400 steps."""
    lines = [
        "| model | weights | CPU s: forward pass | a direction | a step | memory ÷ inference |",
        "|---|---|---|---|---|---|",
    ]
    for model, row in result["steps"].items():
        seconds = [
            f"{statistics.median(row[f'{part}_seconds']):.2f}"
            for part in ("forward", "direction", "step")
        ]
        lines.append(
            f"| `{model}` | {row['weights'] / 1e6:.1f} million | {' | '.join(seconds)} "
            f"| {row['memory_ratio']:.2f} |"
        )
    lines += ["", "| `minilm-l6`, a new head | held-out loss before | after |", "|---|---|---|"]
    for run in result["learning"]["runs"]:
        before, after = (run[at]["loss"] for at in ("before", "after"))
        lines.append(
            f"| seed {run['seed']}, {run['client_steps']} steps | {before:.4f} | {after:.4f} |"
        )
    return lines


def _speed(value: float) -> str:
    """MB/s with two digits; beyond 100 GB/s nothing is done."""
    digits = max(0, len(str(round(value))) - 2)
    return "—" if value > 1e5 else f"{round(value, -digits):,.0f}"
