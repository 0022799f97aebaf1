"""Checks of learners that hold for every adapter and every kind of model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import StoppedError
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.batched_clients.train import train
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from stopping import ctrl_c


def loss(learner: AdaptedModel) -> float:
    """The loss of all training examples in one batch."""
    with torch.no_grad():
        batch = learner.batch(learner.examples("train"))
        return float(learner.objective.loss(learner, batch))


def trains_together_as_alone(
    learner: AdaptedModel,
    changes: Sequence[Mapping[str, Any]],
    left_out: int = 1,
    atol: float = 5e-5,
) -> None:
    """One client for each change of the training settings; each ends where it would alone.

    left_out: the rows by which each client has fewer than the one before.
    atol: Adam moves an entry whose gradient is nearly 0 by the gradient's rounding error.
    """
    start, rows = learner.tensors(), learner.examples("train")
    clients = [
        replace(
            learner,
            splits={"train": rows[index * left_out :]},
            context=RoundContext(0, 1, f"client {index}"),
            training=replace(learner.training, **change),
        )
        for index, change in enumerate(changes)
    ]
    alone = []
    for client in clients:
        client.load(start)
        client.fit()
        alone.append(client.tensors())
    learner.load(start)
    members = [client.member() for client in clients]
    assert all(member.joins for member in members)
    train(members)
    for member, wanted in zip(members, alone, strict=True):
        for name, tensor in wanted.items():
            torch.testing.assert_close(member.tensors[name], tensor, atol=atol, rtol=1e-5)
            assert not torch.equal(tensor, start[name])


def resumed_ends_in_the_same_adapter(file: Path, *words: str) -> None:
    """An experiment that is stopped in round 2 and resumed saves the adapter of one that is not."""
    words = (*words, "rounds=3", "train.max_steps=2")
    whole, again = file.parent / "whole", file.parent / "again"
    simulation.run(load(file, [f"output_dir={whole}", *words]))
    with ctrl_c("round 2", 1), pytest.raises(StoppedError):
        simulation.run(load(file, [f"output_dir={again}", *words]))
    simulation.resume(again)
    first, second = (
        (run / "adapter/adapter_model.safetensors").read_bytes() for run in (whole, again)
    )
    assert first == second
