"""Groups of clients that get the same instruction, and the memories that belong to them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.identity import Identity
from hanse.federation.exchange.downloads import Downloads
from hanse.federation.interfaces.algorithm import State
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from toys import federate, silos

ROUNDS, CLIENTS = 20, 6


class Shrunk(Identity):
    """Loses a tenth of every tensor."""

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors={n: 0.9 * t for n, t in update.tensors.items()})


@dataclass(frozen=True)
class Halves(FedAvg):
    """Instructs one half of the clients by another number than the other, drawn in each round."""

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        draw = torch.Generator().manual_seed(context.round)
        order = torch.randperm(CLIENTS, generator=draw).tolist()
        half = order.index(int(profile.name[1:])) < CLIENTS // 2
        return Instruction(state["model"], {"half": float(half)})


def test_memories_do_not_grow_with_the_rounds(tmp_path: Path) -> None:
    outcome = federate(
        Halves(),
        silos(CLIENTS),
        tmp_path / "run",
        rounds=ROUNDS,
        download=[Shrunk()],
        error_feedback=True,
    )
    assert len(outcome.server_state.download_memories) == 2  # those of the last round's halves


def test_equal_tensors_under_other_names_are_another_instruction() -> None:
    one, two = torch.ones(2), torch.zeros(2)
    instructions = {"a": Instruction({"x": one, "y": two}), "b": Instruction({"y": one, "x": two})}
    method = Method(FedAvg(), Mean(), Pipelines(download=Pipeline("download", (Identity(),))))
    downloads = Downloads(method, {}, {}, RoundContext(0, 1), instructions)
    for client, instruction in instructions.items():
        encoded = downloads.encoded(client).tensors
        assert all(torch.equal(encoded[name], t) for name, t in instruction.tensors.items())
