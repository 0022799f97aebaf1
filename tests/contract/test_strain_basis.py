"""Strain test: a two-phase codec whose state the server broadcasts.

First plain updates are collected; then the server finds the few directions that they lie in, and
from there on clients send coefficients alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Instruction, Update
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, largest
from toys import Meddler, Outcome, federate, held_out, same, silos

FEATURES, RANK, COLLECTED, ROUNDS = 200, 3, 4, 9


@dataclass(frozen=True)
class Basis(Transform):
    """Updates as coefficients in the principal directions of the first rounds' combined updates.

    Coefficients are rounded to multiples of `grid`; what is lost goes with the next update.
    """

    linear: ClassVar[bool] = False
    rank: int = RANK
    collected: int = COLLECTED  # rounds of plain updates
    grid: float = 1e-6
    feedback: bool = True

    def init(self, expected: Layout) -> Tensors:
        return {f"shape/{n}": torch.tensor(largest(t).shape) for n, t in expected.items()}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        if "basis" not in state:
            return expected
        return {"coefficients": torch.empty(self.rank, device="meta")}

    def broadcast(self, state: Tensors) -> Tensors:
        return {name: tensor for name, tensor in state.items() if name != "seen"}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        if "basis" not in state:
            return update
        exact = state["basis"] @ flat(update.tensors)
        if "error" in memory:
            exact = exact + memory["error"]
        sent = (exact / self.grid).round() * self.grid
        if self.feedback:
            memory["error"] = exact - sent
        return replace(update, tensors={"coefficients": sent})

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        if "basis" not in state:
            return update
        shapes = {name[6:]: t.tolist() for name, t in state.items() if name.startswith("shape/")}
        names = sorted(shapes)
        sizes = [int(torch.tensor(shapes[name]).prod()) for name in names]
        parts = (update.tensors["coefficients"] @ state["basis"]).split(sizes)
        tensors = {name: part.view(shapes[name]) for name, part in zip(names, parts, strict=True)}
        return replace(update, tensors=tensors)

    def finish(
        self, combined: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        if "basis" in state:
            return combined, state
        new = flat(combined.tensors)[None]
        seen = torch.cat([state["seen"], new]) if "seen" in state else new
        shapes = {name: t for name, t in state.items() if name.startswith("shape/")}
        if len(seen) < self.collected:
            return combined, {**shapes, "seen": seen}
        directions = torch.linalg.svd(seen, full_matrices=False).Vh
        return combined, {**shapes, "basis": directions[: self.rank].contiguous()}


def flat(tensors: Tensors) -> Tensor:
    """All values in one row, in the order of the names."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@dataclass(frozen=True)
class Planted(FedAvg):
    """Clients 'train' to changes within RANK fixed directions; from round 5 on always the same."""

    def train(self, instruction: Instruction, client: Client) -> Update:
        draw = torch.Generator().manual_seed(0)
        context = RoundContext(
            client.context.seed, min(client.context.round, 5), client.profile.name
        )
        mix = torch.randn(RANK, generator=context.generator("mix"))
        change = {
            name: (mix @ torch.randn(RANK, t.numel(), generator=draw)).view(t.shape) / 10
            for name, t in sorted(instruction.tensors.items())
        }
        return Update(change, {}, weight=client.profile.examples)


def go(folder: Path, *codecs: Transform, stop: int | None = None, missing: int = 0) -> Outcome:
    """A planted run; the client c3 hears nothing in the first `missing` rounds."""

    def network(inner: Meddler) -> Meddler:
        return Meddler(inner, lost=lambda name, kind, round: name == "c3" and round <= missing)

    return federate(
        Planted(),
        silos(4, features=FEATURES),
        folder,
        held_out(features=FEATURES),
        rounds=ROUNDS,
        upload=codecs,
        network=network,
        stop_after=stop,
    )


def distance(a: Outcome, b: Outcome) -> float:
    """The largest difference between two runs' models."""
    left, right = a.server_state.algorithm_state["model"], b.server_state.algorithm_state["model"]
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_planted_directions_are_found_exactly(tmp_path: Path) -> None:
    plain, coded = go(tmp_path / "plain"), go(tmp_path / "coded", Basis())
    moved = max(float(t.abs().max()) for t in plain.server_state.algorithm_state["model"].values())
    assert distance(plain, coded) < 1e-5 < moved
    # Too few directions cannot hold them: the test above sees what a codec loses.
    assert distance(plain, go(tmp_path / "short", Basis(rank=RANK - 1))) > 1e-2


def test_coefficients_make_small_messages(tmp_path: Path) -> None:
    go(tmp_path / "run", Basis())
    rows = [row for row in read_ledger(tmp_path / "run") if row.kind == "train"]
    early = {row.up for row in rows if row.round <= COLLECTED}
    late = {row.up for row in rows if row.round > COLLECTED}
    saved = 4 * (3 * FEATURES + 3 - RANK)  # float32 values that are not sent any more
    assert max(late) < min(early) - 0.9 * saved


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("stop", [2, COLLECTED, COLLECTED + 2])
def test_resume_equals_no_stop(tmp_path: Path, stop: int, missing: int) -> None:
    codec = Basis(grid=0.5)
    whole = go(tmp_path / "whole", codec, missing=missing)
    go(tmp_path / "stopped", codec, stop=stop, missing=missing)
    assert same(go(tmp_path / "stopped", codec, missing=missing).server_state, whole.server_state)
    assert "basis" in whole.server_state.transform_states["upload.0"]


def test_client_that_missed_the_first_phase_can_encode(tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", missing=COLLECTED + 1)
    coded = go(tmp_path / "coded", Basis(), missing=COLLECTED + 1)
    assert [len(record.clients) for record in coded.records] == [0] + [3] * 5 + [4] * 4
    assert distance(plain, coded) < 1e-5


def test_what_rounding_loses_goes_with_the_next_update(tmp_path: Path) -> None:
    grid = 0.5
    plain = go(tmp_path / "plain")
    kept = go(tmp_path / "kept", Basis(grid=grid))
    lost = go(tmp_path / "lost", Basis(grid=grid, feedback=False))
    basis = kept.server_state.transform_states["upload.0"]["basis"]

    def error(run: Outcome) -> float:
        off = flat(run.server_state.algorithm_state["model"]) - flat(
            plain.server_state.algorithm_state["model"]
        )
        return float((basis @ off).abs().max())

    # With feedback at most the last round's rounding is missing, however many rounds there were.
    assert error(kept) <= grid / 2 + 1e-4 < error(lost)
