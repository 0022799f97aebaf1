"""How far a client is in the training of one round, on disk: a killed one goes on from there."""

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
from hanse.learners.training import optimizer_state
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import MessageError, Numbers, pack, unpack, whole_number

log = logging.getLogger(__name__)

SAVED = "training"  # what such a file says that it is


@dataclass
class TrainingCheckpoint:
    """Of one request, for which a client may train several times.

    A file belongs to a round, to the training's number in the request, and to a hash of what it
    began with; another training finds none. Files of other rounds are removed.

    folder: of one client and run. every: seconds of training between two writes.
    """

    folder: Path
    every: float
    _trainings: int = 0
    _file: Path = field(default=Path(), init=False)
    _due: float = field(default=0.0, init=False)

    def begin(self, context: RoundContext, start: str) -> None:
        """A training begins; start: a hash of what it begins with."""
        round = f"round-{context.round:05d}-"
        for file in atomic_files.listed(self.folder):
            if not file.name.startswith(round):
                with atomic_files.explained(file):
                    file.unlink(missing_ok=True)
        self._trainings += 1
        own = hashlib.sha256(f"{context} {self._trainings} {start}".encode()).hexdigest()
        self._file = self.folder / f"{round}{own}.checkpoint"
        self._due = time.monotonic() + self.every

    def restore(
        self, parameters: Mapping[str, Parameter], optimizer: Optimizer
    ) -> tuple[int, Numbers, Tensors] | None:
        """Steps that are done, and what `keep` was told of them; None if there is no whole file.

        Raises UserError if the system refuses to read it.
        """
        try:
            content = atomic_files.unseal(self._file)
            if content is None:
                return None
            _, numbers, groups = unpack(content, SAVED)
        except (atomic_files.DamagedError, MessageError) as error:
            log.warning("%s; the round's training begins anew", error)
            return None
        for name, parameter in parameters.items():
            parameter.data.copy_(groups["parameters"][name])
        optimizer_state.restore(optimizer, parameters, groups["optimizer"])
        _set_random(groups["others"], parameters)
        done = whole_number(numbers, "done")
        log.info("%s: going on with the training after step %d", self._file.name[:11], done)
        return done, numbers, groups["sums"]

    def keep(
        self,
        done: int,
        parameters: Mapping[str, Parameter],
        optimizer: Optimizer,
        numbers: Numbers,
        sums: Tensors,
    ) -> None:
        """Write it all down if it is time to.

        done: steps. numbers, sums: what has been seen so far.
        """
        if time.monotonic() < self._due:
            return
        groups = {
            "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
            "optimizer": optimizer_state.state_of(optimizer, parameters),
            "others": _random(parameters),
            "sums": {name: value.cpu() for name, value in sums.items()},
        }
        header = {"message": SAVED, "kind": "client"}
        content = pack(header, {**numbers, "done": done}, groups)
        atomic_files.seal(self._file, content)
        self._due = time.monotonic() + self.every


def _random(parameters: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """The state of torch's global generators, from which dropout draws."""
    found = {"cpu": torch.get_rng_state()}
    for device in _gpus(parameters):
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def _set_random(states: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> None:
    torch.set_rng_state(states["cpu"])
    for device in _gpus(parameters):
        torch.cuda.set_rng_state(states["cuda"], device)


def _gpus(parameters: Mapping[str, Parameter]) -> set[torch.device]:
    return {p.device for p in parameters.values() if p.device.type == "cuda"}
