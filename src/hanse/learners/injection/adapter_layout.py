"""The files of a saved adapter: a PEFT folder, and one inside it for each further kind."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hanse.tensors import json_text

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
METADATA, AROUND = "__metadata__", "around"  # the key, in the metadata, of the other folders
LONGEST = 1 << 27  # bytes that are read of a header


def marked(weights: bytes, around: Sequence[str]) -> bytes:
    """A safetensors file whose metadata name the folders of the kinds around its own.

    around: from the inside outwards. safetensors would write its metadata in random order, but the
    same run must leave the same bytes.
    """
    if not around:
        return weights
    header, size = _header(weights)
    header.setdefault(METADATA, {})[AROUND] = ",".join(around)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return struct.pack("<Q", len(text)) + text + weights[8 + size :]


def folders(adapter: Path) -> list[Path]:
    """The folders of all kinds of a saved adapter, innermost first; raises OSError or ValueError.

    Only folders that the metadata name belong to it: PEFT's folders may hold checkpoints, too.
    """
    with open(adapter / WEIGHTS, "rb") as file:
        size = file.read(8)
        length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
        header, _ = _header(size + file.read(min(length, LONGEST)))
    metadata = header.get(METADATA)
    around = metadata.get(AROUND, "") if isinstance(metadata, dict) else ""
    names = [name for name in str(around).split(",") if name]
    if not all(map(str.isidentifier, names)):  # a path could lead out of the adapter's folder
        raise ValueError(f"{WEIGHTS} names folders that no kind of adapter has")
    return [adapter, *(adapter / name for name in names)]


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and its length; raises ValueError if there is none."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        return json_text.parse_object(data[8 : 8 + size]), size
    except (struct.error, ValueError) as error:
        raise ValueError(f"{WEIGHTS} has no header of safetensors: {error}") from None
