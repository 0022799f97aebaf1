"""Both halves of a part know the number of rounds, so that schedules over them agree."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from hanse.experiment.assembly import assemble
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from hanse.tensors.named import Layout, Tensors

Calls = list[tuple[str, int, int]]  # half, round, number of rounds


@dataclass(frozen=True)
class Average(FedAvg):
    """FedAvg that records the contexts that its halves get."""

    calls: Calls
    needs = FedAvg.needs

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction | None:
        self.calls.append(("instruction", context.round, context.rounds))
        return super().instruction(state, profile, context)

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        self.calls.append(("update_layout", context.round, context.rounds))
        return super().update_layout(state, profile, context)

    def train(self, instruction: Instruction, client: Client) -> Update:
        self.calls.append(("train", client.context.round, client.context.rounds))
        return super().train(instruction, client)

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        self.calls.append(("step", server.context.round, server.context.rounds))
        return super().step(state, combined, server)


@dataclass(frozen=True)
class Recorder(Transform):
    """Changes nothing, and records the contexts that its halves get."""

    calls: Calls
    payloads = ("change", "model")

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        self.calls.append(("encode", context.round, context.rounds))
        return update

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        self.calls.append(("decode", context.round, context.rounds))
        return update

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        self.calls.append(("finish", context.round, context.rounds))
        return aggregate, state


def test_both_halves_know_the_number_of_rounds(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    codecs = (Recorder(calls),)
    pipelines = Pipelines(Pipeline("upload", codecs), Pipeline("download", codecs))
    method = Method(Average(calls), Mean(), pipelines)
    monkeypatch.setattr(assemble, "build_method", lambda experiment: method)
    simulation.run(load(experiment_file, ["rounds=2"]))
    halves = {"instruction", "update_layout", "train", "step", "encode", "decode", "finish"}
    assert set(calls) == {(half, round, 2) for half in halves for round in (1, 2)}


def test_draws_do_not_depend_on_the_number_of_rounds() -> None:
    draws = {RoundContext(0, 1, "north", rounds).derive("mask") for rounds in (0, 2, 100)}
    assert len(draws) == 1
