"""Checks of a model folder before it is loaded: no code, no pickle, no files elsewhere.

A configuration may also declare a model far larger than its weights, which would fill the memory
before the missing weights are noticed. Its sizes are therefore compared with those of the weights.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.tensors import json_text

ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer_config.json"
# Settings of a tokenizer that it would read instead of the folder's files. The folder's files win
# over other settings that end in _file, unless the tokenizer's class has no such file.
VOCABULARIES = ("vocab", "merges", "gguf_file")
PACKED = 8  # numbers of 4 bits in one of 32 bits, which shorten a side of quantized weights
LARGEST_HEADER = 64 * 2**20  # bytes
# Each layer of these counts has weights of its own; each of these widths is a side of a weight.
LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    *("decoder_layers", "num_decoder_layers", "num_encoder_layers"),
)
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "intermediate_size", "n_inner", "vocab_size")


def vet(folder: Path) -> None:
    """Raise UserError for a model folder that lacks a file, or needs code or pickle to load."""
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files:
        raise UserError(f"the model folder {folder} has no config.json.")
    _refuse_references(folder / "config.json")
    if TOKENIZER in files:
        _refuse_other_vocabulary(folder / TOKENIZER)
    for name in ("config.json", TOKENIZER):
        if name in files and _asks_for_code(folder / name):
            raise UserError(
                f"{folder / name} asks to run code that comes with the model (auto_map); "
                "hanse never does: use a model of an architecture that transformers knows."
            )
    if not any(name.endswith(".safetensors") for name in files):
        pickled = sorted(n for n in files if n.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")))
        what = f"only {pickled[0]}, a pickle, which could run code" if pickled else "no weights"
        raise UserError(f"the model folder {folder} has {what}; convert it to safetensors first.")
    if not files & {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        raise UserError(
            f"the model folder {folder} has no tokenizer; save it there with "
            "tokenizer.save_pretrained(folder)."
        )
    if ADAPTER in files:
        raise UserError(
            f"the model folder {folder} holds an adapter ({ADAPTER}), which transformers would put "
            "into the base model without a word; move it out, and go on from it by adapter.from."
        )
    shapes = [shape for file in _weights(folder, files) for shape in _shapes(file)]
    _refuse_inflated(folder / "config.json", shapes)


def _refuse_references(config: Path) -> None:
    """Raise UserError for a configuration by which transformers would load other files or code.

    `transformers_weights` names a file of weights, which may be a pickle or another folder's index.
    An implementation of attention or experts may name code on a hub.
    """
    for name, value in _entries(config):
        outside = name.endswith("_implementation") and "/" in json.dumps(value)
        if name == "transformers_weights" or outside:
            raise UserError(
                f"{config} has {name} {value!r:.80}, by which something else than the weights of "
                "this folder would be loaded; remove this setting."
            )


def _refuse_other_vocabulary(config: Path) -> None:
    """Raise UserError for a tokenizer's configuration that names files to read in its place."""
    for name, value in _entries(config):
        versions = value if name == "fast_tokenizer_files" and isinstance(value, list) else []
        elsewhere = name.endswith("_file") and isinstance(value, str) and os.path.isfile(value)
        if (
            (elsewhere and name != "special_tokens_map_file")  # which is never read
            or (name in VOCABULARIES and isinstance(value, str))
            or not all(re.fullmatch(r"tokenizer(\.[\w.]+)?\.json", str(file)) for file in versions)
        ):
            raise UserError(
                f"{config} has {name} {value!r:.80}, by which another vocabulary than that of this "
                "folder would be read; remove this setting."
            )


def _asks_for_code(file: Path) -> bool:
    """True if a configuration names code of its own, at any depth."""
    return any(name in ("auto_map", "trust_remote_code") for name, _ in _entries(file))


def _entries(file: Path) -> list[tuple[str, Any]]:
    """All settings in a JSON file, at any depth, by name; raises UserError if it is no JSON."""

    def entries(value: object) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield name, item
                yield from entries(item)
        elif isinstance(value, list):
            for item in value:
                yield from entries(item)

    try:
        return [*entries(json_text.read(file))]
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None


def _weights(folder: Path, files: set[str]) -> list[Path]:
    """The files of weights that transformers would read; raises UserError for one elsewhere."""
    if INDEX not in files:
        return sorted(folder / name for name in files if name.endswith(".safetensors"))
    try:
        named = json_text.read_object(folder / INDEX)["weight_map"]
        shards = {str(shard) for shard in named.values()}
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / INDEX} is no index of weights: {error!r}.") from None
    for shard in sorted(shards):
        if shard not in files or not shard.endswith(".safetensors"):
            raise UserError(
                f"{folder / INDEX} names {shard!r:.80}; weights are .safetensors files in the "
                "folder itself."
            )
    return sorted(folder / shard for shard in shards)


def _shapes(file: Path) -> Iterator[tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, from its header.

    Raises UserError if it is no such file.
    """
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > min(LARGEST_HEADER, file.stat().st_size):
                raise ValueError(f"its header would have {length:,} bytes")
            header = json_text.parse_object(handle.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield tuple(int(side) for side in tensor["shape"])
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the weights {file} cannot be loaded: {error}.") from None


def _refuse_inflated(config: Path, shapes: list[tuple[int, ...]]) -> None:
    """Raise UserError for a configuration of a larger model than the weights are of."""
    widest = max((side for shape in shapes for side in shape), default=0)
    for name, value in _entries(config):
        if name not in (*LAYERS, *WIDTHS) or not isinstance(value, int):
            continue
        layers = name in LAYERS
        if value > (len(shapes) if layers else PACKED * widest):
            have = f"{len(shapes):,} tensors" if layers else f"no side longer than {widest:,}"
            raise UserError(
                f"{config} declares {name} {value:,}, but the weights have {have}; bring the "
                "configuration that belongs to them."
            )
