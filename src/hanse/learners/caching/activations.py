"""Hidden states that were computed once: in memory, and beyond a limit in a file without a name."""

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

from hanse.learners.models.model_files import cache
from hanse.observability.memory import total_memory

log = logging.getLogger(__name__)

SHARE = 8  # an eighth of the memory that this process may use
RESERVE = 2e9  # bytes of disk that are left to others, checkpoints among them
BESIDE = 512  # bytes that a tensor and its key take beside its numbers, roughly


class Activations:
    """Tensors by key. What does not fit is not kept: whoever asks for it gets None.

    Nothing is ever thrown out: rows come round in turn, and each would push out the one that is
    wanted next. The file, in the cache folder, is gone when the process ends, however it ends.
    """

    def __init__(self, memory: float | None = None) -> None:
        """memory: bytes to hold before the file is used; none: a share of the machine's."""
        self._left = total_memory() / SHARE if memory is None else memory
        self._held: dict[Hashable, Tensor] = {}
        self._spilled: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._file: RawIOBase | None = None
        self._full = False

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor that was put there, on the processor."""
        if key in self._held:
            return self._held[key]
        if self._file is None or key not in self._spilled:
            return None
        place, shape, dtype = self._spilled[key]
        found = torch.empty(shape, dtype=dtype)
        self._file.seek(place)
        return found if self._file.readinto(_bytes(found)) == found.nbytes else None

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor that is on the processor, if there is room."""
        size = tensor.nbytes + BESIDE
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
                "no more activations are kept (%s): those of further rows are computed each time; "
                "free some space, or set HANSE_CACHE to another folder",
                error,
            )

    def _spill(self, key: Hashable, tensor: Tensor) -> None:
        folder = cache() / "activations"
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        if shutil.disk_usage(folder).free < RESERVE + tensor.nbytes:
            raise OSError(f"the disk of {folder} has less than {RESERVE / 1e9:.0f} GB left")
        place = self._file.seek(0, os.SEEK_END)
        if self._file.write(_bytes(tensor)) != tensor.nbytes:
            raise OSError(f"the disk of {folder} is full")
        self._spilled[key] = place, tensor.shape, tensor.dtype


def _bytes(tensor: Tensor) -> Any:
    """The numbers of a tensor, the very ones if they lie in order; numpy has no bfloat16."""
    return tensor.flatten().view(torch.uint8).numpy()
