"""The hash of a base model, equal for copies of the same model.

It covers every file that is loaded: weights, configuration, tokenizer with its chat template, and
generation settings. A .gguf file holds all of these and is hashed as it is.
"""

import hashlib
import json
from pathlib import Path

from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.learners.models import model_files
from hanse.learners.models.vetting import vet
from hanse.tensors import json_text

# Settings about the writer of a file, not about the model.
IGNORED = ("transformers_version", "_name_or_path", "name_or_path")
LOADED = (
    *("*.safetensors", "*.json", "*.jinja", "additional_chat_templates/*.jinja"),
    *("*.model", "*.tiktoken", "*.spm", "*.tokenizer"),
    *("vocab.txt", "merges.txt", "dict.txt", "bpe.codes"),
)


def model_hash(folder: Path) -> str:
    """SHA-256 of the names and contents of all files of a model folder that are loaded, as hex.

    JSON files of settings are parsed, so that their layout and the version that wrote them do not
    change the hash. Raises UserError for a folder that hanse would not load.
    """
    vet(folder)
    return unvetted_hash(folder)


def unvetted_hash(folder: Path) -> str:
    """The same hash, of a folder that hanse need not be able to load.

    Raises OSError if a file cannot be read, and UserError for settings that are no JSON.
    """
    digest = hashlib.sha256()
    for file in loaded_files(folder):
        content = _settings(file) if file.name.endswith("config.json") else content_hash(file)
        digest.update(f"{file.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def loaded_files(folder: Path) -> list[Path]:
    """The files of a model folder that its hash covers, sorted."""
    return sorted({file for pattern in LOADED for file in folder.glob(pattern)})


def _settings(file: Path) -> str:
    try:
        values = json_text.read(file)
    except ValueError:
        raise UserError(f"{file} holds no JSON; bring back the file.") from None
    if isinstance(values, dict):  # others lie beside models too, such as a list of training texts
        values = {key: value for key, value in values.items() if key not in IGNORED}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def hash_of(name: str) -> str | None:
    """The hash of the model of this name; None for a hub's id, which is not on this machine.

    Raises UserError if there is no such model.
    """
    if file := model_files.gguf(name):
        return content_hash(file)
    place = Path(model_files.locate(name))
    return model_hash(place) if place.is_dir() else None
