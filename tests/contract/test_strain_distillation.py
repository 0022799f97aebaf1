"""Strain test: distillation between unequal models, with training on the server.

Clients with models of different sizes learn from their own points and from each other's logits on
public ones; only these logits cross the network.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hanse.evaluation.perplexity import Perplexity
from hanse.federation.algorithms.feddistill import FedDistill
from hanse.federation.messages import Reply
from hanse.journal.run_folder import read_ledger
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors import layouts
from toy_learners import CLASSES, Toy
from toys import Meddler, Outcome, federate, held_out, same, silos, with_tensors

TRAINING = TrainingSettings(
    learning_rate=0.03, per_device_train_batch_size=8, max_steps=25, max_grad_norm=0
)
WIDTHS = {"c0": 4, "c1": 7, "c2": 0}
SERVER_WIDTH = 12
ROUNDS, POINTS, K = 4, 30, 2


def clients() -> dict[str, Toy]:
    """Three clients, each with a model of its own size."""
    return {name: replace(toy, hidden=WIDTHS[name]) for name, toy in silos(3, TRAINING).items()}


def go(folder: Path, k: int = K, rounds: int = ROUNDS, **settings: Any) -> Outcome:
    server = held_out(TRAINING, hidden=SERVER_WIDTH)
    return federate(FedDistill(k), clients(), folder, server, rounds=rounds, **settings)


def alone(toy: Toy) -> float:
    """The held-out loss of a client that trains as often, by itself."""
    learner = toy(RoundContext(0), {})
    for number in range(1, ROUNDS + 1):
        start = learner.tensors()
        learner = toy(RoundContext(0, number, "alone"), {})
        learner.load(start)
        learner.fit()
    judged = held_out(hidden=toy.hidden)(RoundContext(0), {})
    judged.load(learner.tensors())
    return Perplexity().evaluate(judged, "test").metrics["loss"]


def test_server_learns_from_logits_alone(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run")
    start, end = (outcome.records[at].test["loss"] for at in (0, -1))
    assert end < 0.5 * start
    assert end < min(alone(toy) for toy in clients().values())


def test_clients_keep_and_are_judged_by_their_own_models(tmp_path: Path) -> None:
    scored = go(tmp_path / "run").records[-1].client_test
    assert set(scored) == set(WIDTHS)
    for name, toy in clients().items():
        untrained = Perplexity().evaluate(toy(RoundContext(0), {}), "test").metrics["loss"]
        assert scored[name]["loss"] < untrained


def test_only_logits_cross_the_network_in_the_bytes_of_the_formula(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    go(tmp_path / "run", rounds=2, network=tapped)
    sizes = {"values": 4 * K * POINTS, "indices": 4 * K * POINTS, "rest": 4 * POINTS}
    assert K < CLASSES
    counted = 0
    for message in taps[0].requests + taps[0].replies:
        tensors = safetensors.torch.load(message)
        sent = {key.partition("/")[2]: tensor.nbytes for key, tensor in tensors.items()}
        del sent[""]  # the message's plain numbers
        assert sent in ({}, sizes)
        counted += bool(sent)
    # Up in two rounds; down in the second one, and before the clients are judged.
    assert counted == (2 + 1 + 1) * len(WIDTHS)


def test_a_client_whose_logits_cannot_be_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    def forged(reply: Reply) -> Reply:
        if reply.client != "c1" or reply.kind != "train":
            return reply
        indices = torch.full_like(reply.update.tensors["indices"], CLASSES)
        return with_tensors(reply, {**reply.update.tensors, "indices": indices})

    outcome = go(tmp_path / "run", rounds=1, network=lambda inner: Meddler(inner, changed=forged))
    assert outcome.records[-1].clients == ("c0", "c2")
    errors = {row.client: row.error for row in read_ledger(tmp_path / "run") if row.error}
    assert errors == {"c1": "logits are of classes other than 0 to 2"}


def test_profiles_have_the_layouts_of_unequal_models(tmp_path: Path) -> None:
    profiles = go(tmp_path / "run", rounds=1).run.transport.profiles()
    widths = {profile.name: layouts.union([profile.layout or {}]) for profile in profiles}
    assert {name: len(form["weight"][0]) for name, form in widths.items()} == {
        name: width or 4 for name, width in WIDTHS.items()
    }


def test_resume_equals_no_stop(tmp_path: Path) -> None:
    go(tmp_path / "stopped", rounds=3, stop_after=1)
    whole = go(tmp_path / "whole", rounds=3).server_state
    assert same(go(tmp_path / "stopped", rounds=3).server_state, whole)
