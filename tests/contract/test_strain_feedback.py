"""Strain test: error feedback around a codec of varying length, on both ways."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.rolora import RoLoRA
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.halves import Client
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request, Update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import add, from_bytes, subtract
from parts.squeezed import Squeezed
from toys import Meddler, Outcome, federate, held_out, same, silos, with_tensors

GRID = 0.25
CODEC = Squeezed(GRID)


@dataclass(frozen=True)
class Drawn(FedAvg):
    """Clients 'train' to drawn changes, much smaller than a step of the grid."""

    def train(self, instruction: Instruction, client: Client) -> Update:
        draw = client.context.generator("change")
        change = {
            name: torch.randn(tensor.shape, generator=draw) * GRID / 5
            for name, tensor in sorted(instruction.tensors.items())
        }
        return Update(change, {}, weight=client.profile.examples)


def go(folder: Path, algorithm: Algorithm | None = None, **settings: Any) -> Outcome:
    """Four rounds of four clients; by default with the codec on the upload, without feedback."""
    more = {"upload": [CODEC], "rounds": 4, "server": held_out(), "learners": silos(4), **settings}
    return federate(algorithm or Drawn(), folder=folder, **more)


def off(a: Outcome, b: Outcome) -> float:
    """The largest difference between two runs' models."""
    left, right = (o.server_state.algorithm_state["model"] for o in (a, b))
    return max(float((left[name] - right[name]).abs().max()) for name in right)


def test_feedback_sends_what_rounding_has_lost(tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", upload=[])
    lossy, fed = go(tmp_path / "lossy"), go(tmp_path / "fed", error_feedback=True)
    # With feedback at most the last rounding is missing, however many rounds there were.
    assert off(fed, plain) <= GRID / 2 + 1e-6 < off(lossy, plain)


def test_decoded_updates_and_memory_sum_to_all_updates() -> None:
    pipeline = Pipeline("upload", (CODEC,), error_feedback=True)
    states = pipeline.init({"w": torch.empty(5, 3, device="meta")})
    memory: dict[str, dict[str, torch.Tensor]] = {}
    total = decoded = {"w": torch.zeros(5, 3)}
    for number in range(6):
        context = RoundContext(0, number)
        update = Update({"w": torch.randn(5, 3, generator=context.generator("w")) / 10})
        encoded = pipeline.encode(update, memory, states, context)
        decoded = add(decoded, pipeline.decode(encoded, states, context).tensors)
        total = add(total, update.tensors)
    lost = subtract(total, decoded)["w"]
    assert float(lost.abs().max()) > GRID / 10
    torch.testing.assert_close(memory["upload.feedback"]["w"], lost, atol=1e-6, rtol=0)


def test_messages_vary_in_length_within_their_bound(tmp_path: Path) -> None:
    features = 400
    settings = {"learners": silos(4, features=features), "server": held_out(features=features)}
    go(tmp_path / "run", **settings)
    go(tmp_path / "plain", upload=[], **settings)
    rows, dense = (
        [row.up for row in read_ledger(tmp_path / label) if row.kind == "train"]
        for label in ("run", "plain")
    )
    assert len(set(rows)) > 4
    assert max(rows) < min(dense) / 4


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_with_feedback_on_both_ways_equals_no_stop(tmp_path: Path, stop: int) -> None:
    settings = {"download": [CODEC], "error_feedback": True}
    whole = go(tmp_path / "whole", FedAvg(), **settings)
    go(tmp_path / "stopped", FedAvg(), stop_after=stop, **settings)
    stopped = go(tmp_path / "stopped", FedAvg(), **settings)
    assert same(stopped.server_state, whole.server_state)
    memories = [o.server_state.download_memories for o in (whole, stopped)]
    ((group, memory),) = memories[0].items()
    assert memory["download.feedback"].keys() == {"weight", "bias"}
    for name, tensor in memory["download.feedback"].items():
        assert torch.equal(tensor, memories[1][group]["download.feedback"][name])


def test_a_download_owes_its_clients_what_rounding_has_lost(tmp_path: Path) -> None:
    """The decoded models of all rounds sum to the exact ones, up to one rounding."""
    seen: dict[bool, list[float]] = {}

    @dataclass(frozen=True)
    class Still(FedAvg):
        """Clients change nothing, and note the first value of what they were sent."""

        feedback: bool = True

        def train(self, instruction: Instruction, client: Client) -> Update:
            if client.profile.name == "c0":
                seen.setdefault(self.feedback, []).append(
                    float(instruction.tensors["weight"][0, 0])
                )
            zeros = {name: torch.zeros_like(t) for name, t in instruction.tensors.items()}
            return Update(zeros, {}, client.profile.examples)

        def init(self, server: Any) -> Any:
            model = {name: t + 0.3 * GRID for name, t in server.learner.tensors().items()}
            return {"model": model}

    for feedback in (True, False):
        settings = {"upload": [], "download": [CODEC], "error_feedback": feedback, "rounds": 10}
        go(tmp_path / str(feedback), Still(feedback), **settings)
    assert sum(seen[False]) == 0
    assert abs(sum(seen[True]) - 10 * 0.3 * GRID) <= GRID / 2 + 1e-6


def test_an_instruction_is_encoded_once_for_clients_that_get_the_same(tmp_path: Path) -> None:
    calls: list[int] = []

    @dataclass(frozen=True)
    class Counted(Squeezed):
        """Counts how often it encodes."""

        def encode(self, update: Update, *more: Any) -> Update:
            calls.append(len(update.tensors))
            return super().encode(update, *more)

    @dataclass(frozen=True)
    class Each(FedAvg):
        """Gives each client another number, or two groups another model."""

        groups: int = 1

        def instruction(
            self, state: Any, profile: ClientProfile, context: RoundContext
        ) -> Instruction:
            group = float(int(profile.name[1:]) % self.groups)
            return Instruction({n: t + group for n, t in state["model"].items()})

    for groups in (1, 2, 4):
        calls.clear()
        settings = {"upload": [], "download": [Counted()], "rounds": 2}
        go(tmp_path / str(groups), Each(groups), **settings)
        assert len(calls) == (2 + 1) * groups  # two rounds, and clients that score the result


def test_factors_that_take_turns_keep_their_feedback(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "learners": silos(3, rank=2),
        "server": held_out(rank=2),
        "upload": [Odd()],
        "error_feedback": True,
        "rounds": 4,
    }
    go(tmp_path / "run", RoLoRA(), **settings)
    store = MemoryStore(tmp_path / "run" / "clients" / "c0")
    lost = store.look(4)["upload.feedback"]
    assert len(lost) == 2  # of A and of B, each sent in every second round


class Odd(Squeezed):
    """Rounds in place, for updates of any layout."""

    payloads = ("change", "factors")

    def layout(self, expected: Any, state: Any) -> Any:
        return expected

    def encode(self, update: Update, *more: Any) -> Update:
        tensors = {n: (t / self.grid).round() * self.grid for n, t in update.tensors.items()}
        return replace(update, tensors=tensors)

    def decode(self, update: Update, *more: Any) -> Update:
        return update


WRONG = {
    "too long": (from_bytes(bytes(5_000)), "expected at most"),
    "noise": (from_bytes(b"noise"), "cannot be inflated"),
    "a bomb": (from_bytes(zlib.compress(bytes(10**7))[:900]), "does not inflate"),
    "too short": (from_bytes(zlib.compress(bytes(8))), "does not inflate to"),
    "another dtype": (torch.zeros(9), "expected at most"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_blob_that_nothing_encodes_to_is_refused(tmp_path: Path, wrong: str) -> None:
    tensor, reason = WRONG[wrong]

    def changed(reply: Reply) -> Reply:
        liar = reply.client == "c1" and reply.kind == "train"
        return with_tensors(reply, {"deflated": tensor}) if liar else reply

    outcome = go(tmp_path / "run", rounds=1, network=lambda inner: Meddler(inner, changed=changed))
    assert outcome.records[-1].clients == ("c0", "c2", "c3")
    (error,) = [row.error for row in read_ledger(tmp_path / "run") if row.error]
    assert reason in error


def test_a_client_has_codecs_of_its_own(tmp_path: Path) -> None:
    own = {"c1": Pipelines(Pipeline("upload", (Squeezed(0.5),), owner="c1"))}
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    outcome = go(tmp_path / "run", upload=[], own=own, rounds=1, network=tapped)
    assert {*outcome.server_state.transform_states} == {"upload@c1.0"}
    replies = [r for r in map(Reply.parse, taps[0].replies) if r.kind == "train"]
    assert [r.client for r in replies if "deflated" in r.update.tensors] == ["c1"]
    sent = [r for r in map(Request.parse, taps[0].requests) if r.kind == "train"]
    assert [{*request.transform_states} for request in sent] == [set(), {"upload.0"}, set(), set()]
    same_run = go(tmp_path / "all", upload=[], rounds=1)
    assert 0 < off(outcome, same_run) <= 0.25
