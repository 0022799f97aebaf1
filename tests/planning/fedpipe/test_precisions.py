"""The base in fewer bits: memory at rest, and what a step needs beside the activations."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hanse.learners.models.settings import BaseModelSettings
from hanse.planning.fedpipe import precisions
from hanse.planning.fedpipe.choices import Precision

USUAL = Precision("", 1000.0, 1.0, 0.0)
BYTES = {"none": 400, "int8": 120, "nf4": 80}
STEPS = {"none": (1.0, 50.0), "int8": (2.0, 90.0), "nf4": (3.0, 20.0)}


def simulation(settings: BaseModelSettings) -> Any:
    experiment = SimpleNamespace(model=settings)
    experiment.model_copy = lambda update: SimpleNamespace(**update)
    client = SimpleNamespace(learner=learner(settings), examples={"train": [1]})
    return SimpleNamespace(experiment=experiment, clients={"silo-1": client})


def learner(settings: BaseModelSettings) -> Any:
    backbone = SimpleNamespace(model=settings.quantization)
    return SimpleNamespace(context=None, backbone=backbone, kind=settings.quantization)


def test_weights_packed_copies_and_what_steps_need_more_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precisions, "_step", lambda own: STEPS[own.kind])
    monkeypatch.setattr(precisions, "model_bytes", lambda own: BYTES[own.kind])
    monkeypatch.setattr(precisions, "packed_bytes", lambda _: 300)
    resources: Any = SimpleNamespace(learner=lambda experiment, *_: learner(experiment.model))
    settings = BaseModelSettings()
    found = list(precisions.lower_precisions(simulation(settings), resources, USUAL))
    assert [own.name for own in found] == ["int8", "nf4"]
    # 1000 less the weights and their packed copies; int8's steps need 40 more, nf4's no less.
    assert [own.memory for own in found] == [1000 - 700 + 120 + 40, 1000 - 700 + 80]
    chosen = replace(settings, quantization="int8")
    assert not list(precisions.lower_precisions(simulation(chosen), resources, USUAL))
