"""No deployment follows an attack: the server refuses it, and a silo does not read it."""

from pathlib import Path

import pytest
import yaml

from hanse.deployment.server.job_text import job_text
from hanse.deployment.server.preconditions import refuse_unfit
from hanse.deployment.silo.job import received
from hanse.deployment.silo.settings import load as load_silo
from hanse.errors import UserError
from hanse.experiment.loading import load

ATTACK = {"sign_flip": {"attackers": ["silo-2"]}}


def test_a_server_refuses_it_by_its_name(experiment_file: Path) -> None:
    attacked = load(experiment_file, ["attack={ipm: {attackers: 1}}"])
    with pytest.raises(UserError, match=r"attack\.ipm makes .* simulation.*; leave attack out, or"):
        refuse_unfit(attacked)
    refuse_unfit(load(experiment_file))


def test_a_job_has_none_and_a_silo_reads_none(experiment_file: Path, tmp_path: Path) -> None:
    text = job_text(load(experiment_file))
    assert "attack" not in yaml.safe_load(text)
    silo = tmp_path / "silo.yaml"
    data = yaml.safe_load(experiment_file.read_text())["data"]["path"]
    settings = {"name": "silo-2", "server": "127.0.0.1:1", "data": {"path": data}, "state": "state"}
    policy = {"data_settings": ["template", "labels"]}
    silo.write_text(yaml.safe_dump({**settings, "policy": policy}))
    for sent in (text, yaml.safe_dump({**yaml.safe_load(text), "attack": ATTACK})):
        assert received(sent, load_silo(silo)).experiment.attack is None
