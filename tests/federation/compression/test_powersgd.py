"""powersgd against singular value decompositions, and its bases from round to round."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedper import FedPer
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.compression.powersgd import LEFT, RIGHT, SENT, PowerSGD
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import ClientProfile, Instruction, Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, RunningMean, Tensors, add_prefix, layout
from hanse.tensors.serialization import MessageError
from parts.plain_rules import Sums
from toys import Outcome, federate, held_out, same, silos

ROWS, COLUMNS, RANK = 12, 9, 2


def spectrum(values: list[float], seed: int = 0) -> Tensor:
    """A matrix with these singular values and random singular vectors."""
    draw = np.random.default_rng(seed)
    left = np.linalg.qr(draw.standard_normal((ROWS, len(values))))[0]
    right = np.linalg.qr(draw.standard_normal((COLUMNS, len(values))))[0]
    return torch.tensor((left * values) @ right.T, dtype=torch.float32)


def nearest(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of this rank (Eckart and Young)."""
    u, values, vh = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.tensor((u[:, :rank] * values[:rank]) @ vh[:rank], dtype=torch.float32)


@dataclass
class Wire:
    """Clients and the server's half of the codec, for one matrix `w`, with equal weights."""

    feedback: bool
    shape: tuple[int, int] = (ROWS, COLUMNS)
    codec: PowerSGD = field(default_factory=lambda: PowerSGD(RANK))
    memories: dict[int, Any] = field(default_factory=dict)
    round: int = 0

    def __post_init__(self) -> None:
        self.pipeline = Pipeline("upload", (self.codec,), error_feedback=self.feedback)
        self.expected = layout({"w": torch.zeros(self.shape)})
        self.states: dict[str, Tensors] = self.pipeline.init(self.expected)

    def pass_round(self, updates: list[Tensor]) -> list[Tensor]:
        """The updates as the server decodes them."""
        self.round += 1
        context, mean, results = RoundContext(0, self.round), RunningMean(), []
        sent = self.pipeline.broadcast(self.states)
        for number, update in enumerate(updates):
            memory = self.memories.setdefault(number, {})
            message = self.pipeline.encode(Update({"w": update}), memory, sent, context)
            validate_update(message, self.pipeline.layout(self.expected, self.states))
            decoded = self.pipeline.decode(message, self.states, context, self.expected)
            results.append(decoded.tensors["w"])
            mean.add(decoded.tensors, 1.0)
        aggregate = Aggregate(mean.value(), {}, 1.0, ("a",))
        self.states = self.pipeline.finish(aggregate, self.states, context)[1]
        return results


def test_a_matrix_that_stays_comes_to_its_nearest_of_the_rank() -> None:
    matrix, wire = spectrum([5.0, 4.0, 1.0, 0.5]), Wire(feedback=False)
    distances = [
        float((wire.pass_round([matrix])[0] - nearest(matrix, RANK)).norm()) for _ in range(20)
    ]
    # The part outside the subspace shrinks by σ₃/σ₂ = 1/4 in each round.
    assert distances[-1] < 1e-5 < 1e-2 < distances[1]
    ratios = [after / before for before, after in pairwise(distances[4:10])]
    assert ratios == pytest.approx([0.25] * 5, abs=0.03)


@pytest.mark.parametrize("values", [[3.0], [3.0, 0.1]])
def test_up_to_the_rank_nothing_is_lost_from_the_second_round_on(values: list[float]) -> None:
    matrix, wire = spectrum(values), Wire(feedback=False)
    first, *later = [wire.pass_round([matrix])[0] for _ in range(5)]
    assert float((first - matrix).norm()) > 0.1
    for decoded in later:
        torch.testing.assert_close(decoded, matrix, atol=1e-5, rtol=1e-5)


def test_with_feedback_the_mean_comes_to_a_matrix_of_any_rank() -> None:
    matrix, wire = spectrum([2.0] * 9), Wire(feedback=True)
    rounds, total = 60, torch.zeros(ROWS, COLUMNS)
    for _ in range(rounds):
        total += wire.pass_round([matrix])[0]
    lost = wire.memories[0]["upload.feedback"]["w"]
    torch.testing.assert_close(total + lost, rounds * matrix, atol=1e-3, rtol=1e-5)
    # What is owed is that of a few rounds, however many there were.
    assert float((total / rounds - matrix).norm()) < 0.15 * float(matrix.norm())
    plain = Wire(feedback=False)
    kept = sum(plain.pass_round([matrix])[0] for _ in range(rounds)) / rounds
    assert float((kept - matrix).norm()) > 0.8 * float(matrix.norm())


def test_an_update_that_came_once_arrives_in_the_end() -> None:
    matrix, wire = spectrum([3.0, 2.0, 1.0, 0.5]), Wire(feedback=True)
    total = wire.pass_round([matrix])[0]
    for _ in range(30):
        total = total + wire.pass_round([torch.zeros(ROWS, COLUMNS)])[0]
    torch.testing.assert_close(total, matrix, atol=1e-4, rtol=1e-4)


def test_sent_and_owed_are_all_updates_of_every_client() -> None:
    wire, totals, sent = Wire(feedback=True), [torch.zeros(ROWS, COLUMNS)] * 3, [0.0] * 3
    draw = torch.Generator().manual_seed(1)
    for _ in range(7):
        updates = [torch.randn(ROWS, COLUMNS, generator=draw) for _ in range(3)]
        totals = [total + update for total, update in zip(totals, updates, strict=True)]
        sent = [a + b for a, b in zip(sent, wire.pass_round(updates), strict=True)]
    for number, total in enumerate(totals):
        lost = wire.memories[number]["upload.feedback"]["w"]
        torch.testing.assert_close(sent[number] + lost, total, atol=1e-5, rtol=1e-5)


def test_the_basis_follows_the_mean_of_the_clients() -> None:
    """One step is half a power iteration of the mean, whatever the single updates are."""
    mean, away = spectrum([4.0, 1.0, 0.1]), spectrum([3.0] * 5, seed=1)
    several, one = Wire(feedback=False), Wire(feedback=False)
    for _ in range(4):
        several.pass_round([mean + away, mean - away])
        one.pass_round([mean])
    a, b = (wire.states["upload.0"][RIGHT + "w"].double() for wire in (several, one))
    torch.testing.assert_close(a @ a.T, b @ b.T, atol=1e-4, rtol=0)  # the same subspace
    torch.testing.assert_close(a.T @ a, torch.eye(RANK).double(), atol=1e-6, rtol=0)


def test_sides_alternate_for_each_matrix_by_itself() -> None:
    codec = PowerSGD(RANK)
    state = codec.init({"a": torch.zeros(6, 5), "b": torch.zeros(6, 5), "c": torch.zeros(RANK, 9)})
    assert [*state] == [RIGHT + "a", RIGHT + "b"]  # c has no two sides above the rank
    for number, (name, due) in enumerate([("a", LEFT), ("a", RIGHT), ("b", LEFT)], 1):
        aggregate = Aggregate({name: torch.randn(6, 5)}, {}, 1.0, ("x",))
        state = codec.finish(aggregate, state, RoundContext(0, number))[1]
        assert due + name in state and len(state) == 2
    assert codec.finish(Aggregate({}, {}, 0.0, ()), state, RoundContext(0, 4))[1] == state


def test_a_mean_of_zeros_makes_a_basis_that_can_hold_what_comes() -> None:
    """Axes alone would never meet a matrix whose first rows and columns are zero."""
    matrix = torch.zeros(ROWS, COLUMNS)
    matrix[RANK + 3, RANK + 2] = 1.0
    wire = Wire(feedback=False)
    for _ in range(2):
        wire.pass_round([torch.zeros(ROWS, COLUMNS)])
    wire.pass_round([matrix])
    torch.testing.assert_close(wire.pass_round([matrix])[0], matrix, atol=1e-5, rtol=0)


def test_other_tensors_and_other_shapes_travel_as_they_are() -> None:
    codec = PowerSGD(RANK)
    whole = {"w": torch.zeros(ROWS, COLUMNS), "bias": torch.zeros(5), "count": torch.tensor([3])}
    state = codec.init(layout(whole))
    part = {**whole, "w": torch.randn(ROWS, COLUMNS - 2)}
    assert codec.encode(Update(part), {}, state, RoundContext(0)).tensors == part
    assert codec.layout(layout(part), state).keys() == part.keys()
    assert codec.encode(Update(whole), {}, state, RoundContext(0)).tensors.keys() == {
        "w" + SENT,
        "bias",
        "count",
    }


class Renaming(FedAvg):
    """Sends tensors under names of their own in every other round."""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        prefix = "odd/" if context.round % 2 else ""
        return add_prefix(prefix, super().update_layout(state, profile, context))


def test_an_update_none_of_whose_matrices_would_be_encoded_is_refused(tmp_path: Path) -> None:
    def go(algorithm: Algorithm, folder: str, rounds: int = 1) -> Outcome:
        learners, server = silos(2, features=20), held_out(features=20)
        codecs = [PowerSGD(1)]
        return federate(
            algorithm, learners, tmp_path / folder, server, rounds=rounds, upload=codecs
        )

    with pytest.raises(UserError, match=r"sends others, such as odd/weight, .* leave powersgd"):
        go(Renaming(), "renaming", rounds=2)
    go(FedPer(share=("bias",)), "bias")  # there is no matrix to encode
    scaffold = go(Scaffold(), "scaffold")  # its names are not the model's, but always the same
    names = {LEFT + "model/weight", LEFT + "control/weight"}
    assert {*scaffold.server_state.transform_states["upload.0"]} == names


@pytest.mark.parametrize(
    "tensor", [torch.zeros(5), torch.zeros(5, RANK + 1), torch.zeros(2**20, 2)]
)
@pytest.mark.parametrize("name", ["w", "x"])
def test_products_that_nobody_encodes_are_refused(name: str, tensor: Tensor) -> None:
    pipeline = Pipeline("upload", (PowerSGD(RANK),))
    expected = layout({"w": torch.zeros(ROWS, COLUMNS)})
    with pytest.raises(MessageError):
        pipeline.decode(
            Update({name + SENT: tensor}), pipeline.init(expected), RoundContext(0), expected
        )


@dataclass(frozen=True)
class Planted(FedAvg):
    """Clients whose updates are noise around a matrix of their own."""

    def train(self, instruction: Instruction, client: Client) -> Update:
        update = super().train(instruction, client)
        draw = client.context.generator("planted")
        noise = {n: torch.randn(t.shape, generator=draw) for n, t in update.tensors.items()}
        return replace(update, tensors=noise)


def go(folder: Path, stop: int | None = None, rule: Any = None) -> Outcome:
    codecs, features = [PowerSGD(1)], 20
    return federate(
        Planted(),
        silos(3, features=features),
        folder,
        held_out(features=features),
        rounds=4,
        upload=codecs,
        error_feedback=True,
        stop_after=stop,
        aggregator=rule,
    )


def test_a_resumed_run_has_the_same_bases(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")
    for stop in (1, 2):
        go(tmp_path / f"{stop}", stop)
        assert same(go(tmp_path / f"{stop}").server_state, whole.server_state)
    assert [*whole.server_state.transform_states["upload.0"]] == [RIGHT + "weight"]


def test_a_rule_that_sees_only_sums_comes_to_the_same(tmp_path: Path) -> None:
    plain, summed = go(tmp_path / "mean"), go(tmp_path / "sums", rule=Sums())
    for name, tensor in plain.server_state.algorithm_state["model"].items():
        other = summed.server_state.algorithm_state["model"][name]
        torch.testing.assert_close(other, tensor, atol=1e-5, rtol=1e-4)
