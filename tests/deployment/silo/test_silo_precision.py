"""All processes of a run compute in one mode: the server's, whatever a silo would measure."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from hanse.deployment.silo import precision as silo_precision
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.learners.kernels import frozen
from hanse.learners.models import precision
from hanse.learners.models.precision import ComputeMode

MODE = ComputeMode(True, plain_attention=True, products=frozen.kernels(torch.device("cpu"))[-1])


def test_a_silo_takes_the_servers_mode_and_measures_nothing(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a silo must not choose how the trained model computes")

    monkeypatch.setattr(precision, "measured", refuse)
    experiment = load(experiment_file, ["model.bf16=auto"])
    key, given = experiment.model.compute_mode_key, json.dumps(asdict(MODE))
    (tmp_path / silo_precision.FILE).write_text(json.dumps({key: asdict(ComputeMode(False))}))
    silos = [Resources(), Resources()]
    for resources in silos:
        silo_precision.follow(tmp_path, experiment, given, resources)
        backbone = resources.backbone(experiment.model, "tokens", {})
        assert backbone.compute_mode == MODE == resources.compute_modes[key]
        assert resources.measurements == {}
    silo_precision.note(tmp_path / "first", experiment, silos[0])
    noted = json.loads((tmp_path / "first" / silo_precision.FILE).read_text())
    assert noted == {key: asdict(MODE)}
