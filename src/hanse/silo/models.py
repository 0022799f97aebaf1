"""Which base model lies in a folder: a hash that is the same wherever the same model lies."""

import hashlib
import json
from pathlib import Path

from hanse.errors import UserError
from hanse.learners import sources

# What saving writes into config.json beside the model itself.
PASSING = ("transformers_version", "_name_or_path")


def model_hash(folder: Path) -> str:
    """SHA-256 of a model folder's weights and configuration, in hexadecimal.

    It covers the names and contents of all .safetensors files, and config.json without the version
    that wrote it. Raises UserError for a folder that hanse would not load.
    """
    sources.vet(folder)
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            content = hashlib.file_digest(handle, "sha256").hexdigest()
        found.update(f"{file.name} {content}\n".encode())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} holds no settings; bring back the file.")
    kept = {key: value for key, value in config.items() if key not in PASSING}
    found.update(json.dumps(kept, sort_keys=True).encode())
    return found.hexdigest()


def hash_of(name: str) -> str | None:
    """The hash of the model that a name means; None for a hub's id, which is not on this machine.

    Raises UserError if there is no such model.
    """
    place = Path(sources.locate(name))
    return model_hash(place) if place.is_dir() else None
