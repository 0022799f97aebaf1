"""Decoded updates of single clients, one file for each round and client (`compression.collect`)."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors.named import Tensors, map_tensors
from hanse.tensors.serialization import own_storage

FOLDER = "updates"


@dataclass(frozen=True)
class CollectedUpdate:
    """The update of one client in one round, on disk."""

    round: int
    client: str
    file: Path

    def read(self) -> dict[str, Tensor]:
        """Its tensors; raises UserError if the file is damaged."""
        try:
            return safetensors.torch.load_file(self.file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file} cannot be read ({error}); delete it.") from None


def keep(folder: Path, round: int, client: str, tensors: Tensors) -> None:
    """Write a client's update into a run folder; only the owner may read it."""
    own = own_storage(map_tensors(Tensor.contiguous, tensors))
    data = safetensors.torch.save(own)
    atomic_files.write(_round(folder, round) / f"{client}.safetensors", data, private=True)


def listed(folder: Path) -> list[CollectedUpdate]:
    """The updates in a run folder, by round and client."""
    return [
        CollectedUpdate(int(place.name), file.stem, file)
        for place in atomic_files.listed(folder / FOLDER)
        for file in atomic_files.listed(place)
        if file.suffix == ".safetensors"
    ]


def truncate(folder: Path, last: int) -> None:
    """Remove the updates of rounds after `last`, which are done again."""
    for place in atomic_files.listed(folder / FOLDER):
        if int(place.name) > last:
            shutil.rmtree(place)


def _round(folder: Path, round: int) -> Path:
    return folder / FOLDER / f"{round:05d}"
