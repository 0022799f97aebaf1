"""A cache of hidden states in memory and, beyond a limit, in an unnamed temporary file."""

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Hashable
from io import RawIOBase
from typing import Any

import torch
from torch import Tensor

from hanse.learners.models.model_files import cache_folder
from hanse.observability.memory import total_memory

log = logging.getLogger(__name__)

SHARE = 8  # an eighth of the memory that this process may use
RESERVE = 2e9  # bytes of disk that stay free, for checkpoints and other programs
OVERHEAD = 512  # bytes of a tensor and its key beside its numbers, roughly


class Activations:
    """A cache of tensors by key. Tensors that do not fit are not kept.

    Nothing is ever evicted: rows are read in turn, so that each would evict the one that is needed
    next. The file in the cache folder disappears when the process ends, however it ends.
    """

    def __init__(self, memory: float | None = None) -> None:
        """memory: bytes to hold before the file is used; None: a share of the machine's."""
        self._left = total_memory() / SHARE if memory is None else memory
        self._held: dict[Hashable, Tensor] = {}
        self._spilled: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._file: RawIOBase | None = None
        self._full = False

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor of this key, on the CPU; None if it is not kept."""
        if key in self._held:
            return self._held[key]
        if self._file is None or key not in self._spilled:
            return None
        offset, shape, dtype = self._spilled[key]
        tensor = torch.empty(shape, dtype=dtype)
        self._file.seek(offset)
        return tensor if self._file.readinto(_bytes(tensor)) == tensor.nbytes else None

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor that is on the CPU, if there is room."""
        size = tensor.nbytes + OVERHEAD
        if self._full or key in self._held or key in self._spilled:
            return
        if size <= self._left:
            self._left -= size
            self._held[key] = tensor.clone()
            return
        try:
            self._spill(key, tensor)
        except OSError as error:
            self._full = True
            log.warning(
                "no more activations are cached (%s): those of other rows are computed each time; "
                "free some space, or set HANSE_CACHE to another folder",
                error,
            )

    def _spill(self, key: Hashable, tensor: Tensor) -> None:
        folder = cache_folder() / "activations"
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        if shutil.disk_usage(folder).free < RESERVE + tensor.nbytes:
            raise OSError(f"the disk of {folder} has less than {RESERVE / 1e9:.0f} GB left")
        offset = self._file.seek(0, os.SEEK_END)
        if self._file.write(_bytes(tensor)) != tensor.nbytes:
            raise OSError(f"the disk of {folder} is full")
        self._spilled[key] = offset, tensor.shape, tensor.dtype


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor, as a view if it is contiguous; numpy has no bfloat16."""
    return tensor.flatten().view(torch.uint8).numpy()
