"""A client that a rule leaves out: recorded, not counted, and asked again in the next round."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hanse.federation.aggregators.krum import Krum
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.messages import Reply
from hanse.journal.run_folder import read_ledger, read_releases, read_rounds
from hanse.learners.training.settings import TrainingSettings
from hanse.tensors.named import scale
from parts.noised_mean import NoisedMean
from stopping import die, killed
from toys import Meddler, Outcome, federate, held_out, same, silos

KEEP = TrainingSettings(learning_rate=0.1, optim="sgd", momentum=0.9, optimizer_state="keep")
HONEST = ("c0", "c1", "c2", "c3")


def hostile(*rounds: int) -> Callable[[Any], Meddler]:
    """A network in which c4 sends the reverse of its update, enlarged, in these rounds."""

    def changed(reply: Reply) -> Reply:
        if (reply.client, reply.kind) != ("c4", "train") or reply.round not in rounds:
            return reply
        return replace(
            reply, update=replace(reply.update, tensors=scale(reply.update.tensors, -1e4))
        )

    return lambda inner: Meddler(inner, changed=changed)


def go(folder: Path, *rounds: int, **more: Any) -> Outcome:
    """Three rounds of five clients whose optimizers remember; krum keeps four."""
    return federate(
        FedAvg(),
        silos(5, KEEP),
        folder,
        held_out(),
        **{"aggregator": Krum(attackers=1), "network": hostile(*rounds)} | more,
    )


class KrumMean(Krum):
    """Taken for a mean, which noise could protect; it is none."""

    gives: ClassVar[frozenset[str]] = frozenset({MEAN})


def test_it_is_recorded_and_its_memory_of_the_round_is_not_kept(tmp_path: Path) -> None:
    outcome = go(tmp_path, 2)
    [_, first, second, third] = outcome.records
    assert (second.clients, second.excluded) == (HONEST, ("c4",))
    assert all(len(record.clients) == 4 for record in (first, third))
    assert read_rounds(tmp_path)[2].excluded == ("c4",)
    counted = outcome.server_state.last_counted_rounds
    for name in (*HONEST, "c4"):
        last = max((r.round for r in outcome.records if name in r.clients), default=0)
        assert counted.get(name, 0) == last
    trained = [row.client for row in read_ledger(tmp_path) if (row.kind, row.round) == ("train", 3)]
    assert trained == [*HONEST, "c4"]


def test_it_counts_for_the_quorum(tmp_path: Path) -> None:
    """All five have answered, though four are kept: the round is not asked again."""
    outcome = go(tmp_path, 2, quorum=5)
    assert [len(record.clients) for record in outcome.records] == [0, 4, 4, 4]


def test_a_stopped_run_ends_as_a_whole_one(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", 1, 3)
    go(tmp_path / "stopped", 1, 3, stop_after=1)
    after = go(tmp_path / "stopped", 1, 3)
    assert same(after.server_state, whole.server_state)
    assert [r.excluded for r in after.records] == [r.excluded for r in whole.records]


def test_a_release_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed between draw and step knows whom the rule left out."""
    mechanism = NoisedMean(clip=1e9, noise_multiplier=1e-12)
    noised = {"mechanisms": [mechanism], "aggregator": KrumMean(attackers=1), "rounds": 1}
    monkeypatch.setattr(FedAvg, "step", die)
    assert killed(lambda: go(tmp_path, 1, **noised))
    monkeypatch.undo()
    assert [release.excluded for release in read_releases(tmp_path)] == [("c4",)]
    after = go(tmp_path, 1, **noised)
    assert after.records[1].excluded == ("c4",) and after.records[1].clients == HONEST


def test_what_it_sent_is_not_in_the_model(tmp_path: Path) -> None:
    model = go(tmp_path, 1, 2, 3).server_state.algorithm_state["model"]
    assert all(float(tensor.abs().max()) < 10 for tensor in model.values())
    assert torch.isfinite(model["weight"]).all()
