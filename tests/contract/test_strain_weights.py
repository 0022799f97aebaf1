"""Strain test: a codec whose weights are sent to each client once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import PREPARE, Request, Update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors
from toy_learners import FEATURES
from toys import Meddler, Outcome, federate, held_out, same, silos

made: list[int] = []


@dataclass(frozen=True)
class Rotated(Mechanism):
    """Multiplies the weight by an orthogonal matrix, a little different on each machine."""

    linear: ClassVar[bool] = True
    payloads: ClassVar[tuple[str, ...]] = ("change", "model")

    def weights(self) -> Tensors:
        made.append(1)
        drawn = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(3))
        rotation = torch.linalg.qr(drawn).Q.T  # strides and shared memory are the file's business
        return {"rotation": rotation, "same": rotation}

    def init(self, expected: Layout) -> Tensors:
        return {"rounds": torch.zeros(())}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        turned = update.tensors["weight"] @ state["rotation"]
        return replace(update, tensors={**update.tensors, "weight": turned})

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        back = update.tensors["weight"] @ state["rotation"].T
        return replace(update, tensors={**update.tensors, "weight": back})

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        return aggregate, {**state, "rounds": state["rounds"] + 1}


def go(folder: Path, codecs: list[Transform], **settings: Any) -> Outcome:
    both = {"upload": codecs, "download": codecs}
    return federate(FedAvg(), silos(3), folder, held_out(), **{**both, **settings})


def test_weights_are_sent_once_and_make_no_state(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    made.clear()
    coded = go(tmp_path / "coded", [Rotated()], network=tapped)
    plain = go(tmp_path / "plain", [])
    for name, tensor in plain.server_state.algorithm_state["model"].items():
        own = coded.server_state.algorithm_state["model"][name]
        torch.testing.assert_close(own, tensor, atol=1e-5, rtol=0)
    assert len(made) == 2  # of the upload, and of the download
    assert {*coded.server_state.transform_states} == {"upload.0", "download.0"}
    for state in coded.server_state.transform_states.values():
        assert state.keys() == {"rounds"} and float(state["rounds"]) == 3
    requests = [r for r in map(Request.parse, taps[0].requests) if r.kind != PREPARE]
    assert all(r.files.keys() == {"upload.0", "download.0"} for r in requests)
    assert all("rotation" not in state for r in requests for state in r.transform_states.values())
    prepared = [row.down for row in read_ledger(tmp_path / "coded") if row.kind == PREPARE]
    assert sum(prepared) > 4 * FEATURES**2


def test_resume_with_weights_equals_no_stop(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", [Rotated()])
    go(tmp_path / "stopped", [Rotated()], stop_after=1)
    made.clear()
    assert same(go(tmp_path / "stopped", [Rotated()]).server_state, whole.server_state)
    assert not made


def test_one_client_alone_has_no_codec_with_weights(tmp_path: Path) -> None:
    own = {"c1": Pipelines(Pipeline("upload", (Rotated(),), owner="c1"))}
    with pytest.raises(UserError, match=r"clients\.c1: Rotated has weights, and files are sent"):
        go(tmp_path, [], own=own)


def test_a_mechanism_with_weights_reaches_a_client_with_codecs_of_its_own(tmp_path: Path) -> None:
    own = Pipelines(
        Pipeline("upload", (Identity(),), (Rotated(),), owner="c1"), Pipeline("download")
    )
    outcome = federate(
        FedAvg(), silos(3), tmp_path, rounds=1, mechanisms=[Rotated()], own={"c1": own}
    )
    assert outcome.records[-1].clients == ("c0", "c1", "c2")
