"""The files of a model folder that are sent to silos: settings, tokenizer, safetensors."""

import re
from collections.abc import Iterable
from pathlib import Path

from hanse.errors import UserError
from hanse.learners.models.model_files import gguf, locate
from hanse.learners.models.model_hash import loaded_files

CONFIG = "config.json"
# The one list of names that travel. None of them is code or a pickle; `emulator.json` says how a
# model that stands in for a larger one was made.
NAMES = frozenset(
    {
        *(CONFIG, "generation_config.json", "emulator.json"),
        *("model.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "chat_template.jinja", "chat_template.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "dict.txt", "bpe.codes"),
        *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "target.spm"),
    }
)
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def sendable(name: str) -> bool:
    """True if a file of this name may be sent as a part of a model."""
    return name in NAMES or SHARD.fullmatch(name) is not None


def is_model(names: Iterable[str]) -> bool:
    """True if files of these names may be a whole model: a configuration and weights."""
    known = {*names}
    return CONFIG in known and any(name.endswith(".safetensors") for name in known)


def sendable_files(model: str) -> dict[str, Path]:
    """The files of the model of this name that are sent to silos, by name.

    They are all that the model's hash covers. Raises UserError for a model that is no folder on
    this machine, and for a folder with a file that is loaded and not in the list of names.
    """
    converted = gguf(model) is not None
    if converted or not (place := Path(locate(model))).is_dir():
        raise UserError(
            f"deployment.deliver_model sends a folder of safetensors, and {model!r:.200} is "
            f"{'a .gguf file' if converted else 'the name of a model on a hub'}; name a folder "
            "in model.model_name_or_path, such as one that save_pretrained has written."
        )
    files = loaded_files(place)
    for file in files:
        name = str(file.relative_to(place))
        if not sendable(name):
            raise UserError(
                f"deployment.deliver_model sends settings, tokenizer and weights by their usual "
                f"names, and {place} also has {name!r:.80}, which its hash covers; move that file "
                "out of the folder, or give silos the model yourself."
            )
        if not file.stat().st_size:
            raise UserError(f"{file} is empty; remove it, or bring it back from a copy.")
    return {file.name: file for file in files}
