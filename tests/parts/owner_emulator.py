"""An owner tunes its model on data of its own, and lends clients an emulator of it once.

Clients train adapters on top of the emulator, rounds carry the adapters alone, and the owner plugs
their mean into its own model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import Instruction, Update
from hanse.tensors.named import Tensors, add, layout, map_tensors, zeros

EMULATOR = "emulator"


@dataclass(frozen=True)
class OwnerEmulator(Algorithm):
    """Averages adapters that clients train on the owner's emulator, a file that is sent once."""

    needs = frozenset()

    def prepare(self, server: Server, folder: Path) -> Mapping[str, Path]:
        """Train the owner's tensors on its own rows, and write them with half of their bits."""
        learner = server.learner
        learner.fit(split="public" if learner.examples("public") else "validation")
        emulator = map_tensors(torch.Tensor.bfloat16, learner.tensors())
        safetensors.torch.save_file(emulator, folder / "emulator.safetensors")
        return {EMULATOR: folder / "emulator.safetensors"}

    def init(self, server: Server) -> State:
        owner = emulator(server.files)
        return {"model": zeros(layout(owner)), "owner": owner}

    def train(self, instruction: Instruction, client: Client) -> Update:
        start = self.personalized(instruction, client)
        change, fit = client.learner.change(start)
        return Update(change, fit.numbers(), weight=client.profile.examples)

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return add(emulator(client.files), instruction.tensors)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return {**state, "model": add(state["model"], combined.tensors)}

    def model(self, state: State) -> Tensors:
        return add(state["owner"], state["model"])


def emulator(files: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """The tensors of the emulator, as float32."""
    return map_tensors(torch.Tensor.float, safetensors.torch.load_file(files[EMULATOR]))
