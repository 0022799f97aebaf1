"""Tables of docs/wire.md from results: lines of Markdown."""

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
            " ".join(f"{row[kind]['mb_per_second'][way]:,.0f}" for way in ("encode", "decode"))
            for kind in ("large", "lora")
        ]
        extra = max(0, *row["large"]["extra_bytes"].values()) / 2**20
        lora = row["lora"]
        lines.append(
            f"| {name} | {lora['bytes_share']:.1%} | {lora['relative_error']:.2g} "
            f"| {speeds[0]} | {speeds[1]} | {extra:.1f} |"
        )
    return lines
