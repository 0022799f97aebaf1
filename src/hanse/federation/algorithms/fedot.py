"""FedOT (Kuang et al. 2023, 2309.00363; Xiao et al. 2023, 2302.04870): silos tune an emulator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State
from hanse.tensors.named import Tensors

WHOLE, NAMES = "whole", "names"


@dataclass(frozen=True)
class FedOT(FedAvg):
    """FedAvg of an emulator's bottom and top layers, which the owner plugs into the whole model.

    The emulator is `model`, which `hanse emulator` has made, and the whole model `models.whole`,
    which only the server has. Both are scored, the whole one with the trained layers in its own
    places. Sums of updates suffice.
    """

    server_models: ClassVar[tuple[str, ...]] = (WHOLE,)
    plugged_into: ClassVar[str] = WHOLE

    def init(self, server: Server) -> State:
        learner = server.learner
        names = learner.names_in(learner.models[WHOLE])
        return {**super().init(server), NAMES: {name: _bytes(names[name]) for name in names}}

    def beside(self, state: State) -> Mapping[str, Tensors]:
        names = state[NAMES]
        return {WHOLE: {_text(names[name]): tensor for name, tensor in state["model"].items()}}


def _bytes(name: str) -> Tensor:
    """A name as a tensor, since a state has nothing else."""
    return torch.tensor([*name.encode()], dtype=torch.uint8)


def _text(name: Tensor) -> str:
    return bytes(name.tolist()).decode()
