"""Checkpoints of one client within a round's training, so that a killed process can resume."""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from hanse import atomic_files
from hanse.errors import explained
from hanse.learners.training import optimizer_state
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import MessageError, Numbers, pack, unpack, whole_number

log = logging.getLogger(__name__)

MESSAGE = "training"  # the name of this kind of file in its header


@dataclass
class TrainingCheckpoint:
    """Checkpoints of the trainings that a client does for one request.

    A file's name has the round and a hash of the training's number in the request and its start, so
    that another training does not find it. Files of other rounds are removed.

    folder: that of one client and run. every: seconds of training between two writes.
    """

    folder: Path
    every: float
    _trainings: int = 0
    _file: Path = field(default=Path(), init=False)
    _due: float = field(default=0.0, init=False)

    def begin(self, context: RoundContext, start: str) -> None:
        """Begin a training; start: a text that differs for trainings with another start."""
        prefix = f"round-{context.round:05d}-"
        for file in atomic_files.listed(self.folder):
            if not file.name.startswith(prefix):
                with explained(file):
                    file.unlink(missing_ok=True)
        self._trainings += 1
        digest = hashlib.sha256(f"{context} {self._trainings} {start}".encode()).hexdigest()
        self._file = self.folder / f"{prefix}{digest}.checkpoint"
        self._due = time.monotonic() + self.every

    def restore(
        self, parameters: Mapping[str, Parameter], optimizer: Optimizer
    ) -> tuple[int, Numbers, Tensors] | None:
        """Restore the last checkpoint: steps that are done, and the `numbers` and `sums` of then.

        None if there is no file, or a damaged one. Raises UserError if it may not be read.
        """
        try:
            content = atomic_files.find_hashed(self._file)
            if content is None:
                return None
            _, numbers, groups = unpack(content, MESSAGE)
        except (atomic_files.DamagedError, MessageError) as error:
            log.warning("%s; the round's training begins anew", error)
            return None
        for name, parameter in parameters.items():
            parameter.data.copy_(groups["parameters"][name])
        optimizer_state.restore(optimizer, parameters, groups["optimizer"])
        _set_random(groups["others"], parameters)
        done = whole_number(numbers, "done")
        log.info("%s: resuming the training after step %d", self._file.name[:11], done)
        return done, numbers, groups["sums"]

    def save_if_due(
        self,
        done: int,
        parameters: Mapping[str, Parameter],
        optimizer: Optimizer,
        numbers: Numbers,
        sums: Tensors,
    ) -> None:
        """Write a checkpoint if the time since the last one is up.

        done: steps. numbers, sums: those of the training's progress.
        """
        if time.monotonic() < self._due:
            return
        groups = {
            "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
            "optimizer": optimizer_state.state_of(optimizer, parameters),
            "others": _random(parameters),
            "sums": {name: value.cpu() for name, value in sums.items()},
        }
        header = {"message": MESSAGE, "kind": "client"}
        content = pack(header, {**numbers, "done": done}, groups)
        atomic_files.write_hashed(self._file, content, private=True)
        self._due = time.monotonic() + self.every


def _random(parameters: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """The state of torch's global generators, from which dropout draws."""
    states = {"cpu": torch.get_rng_state()}
    for device in _gpus(parameters):
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random(states: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> None:
    torch.set_rng_state(states["cpu"])
    for device in _gpus(parameters):
        torch.cuda.set_rng_state(states["cuda"], device)


def _gpus(parameters: Mapping[str, Parameter]) -> set[torch.device]:
    return {p.device for p in parameters.values() if p.device.type == "cuda"}
