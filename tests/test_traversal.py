"""Names that come from elsewhere never lead out of the folder that they belong to."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from hanse import atomic_files
from hanse.deployment import sockets
from hanse.deployment.envelopes import ENVELOPE_TEXTS, BadEnvelopeError, Envelope
from hanse.deployment.silo import settings
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.job import JobRefusedError, RowCounts, received
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.federation.constants import Constants, ConstantStore
from hanse.federation.messages import Request
from hanse.security import kits
from hanse.tensors.serialization import MessageError, pack
from policy_checks import refusals

PAYLOADS = (
    *("..", "../x", "../../x", "a/../../x", "/x", "/tmp/x", "//x", "./x", ".", "", "~", "~/x"),
    *("..\\x", "C:\\x", "\\\\host\\x", "%2e%2e/x", "%2e%2e%2fx", "..%2fx", "%00", "x\0", "\0"),
    *("x/y", "x\n../y", "\u2025/x", "..\u2215x", "\uff0e\uff0e/x", "-rf", ".hidden", "x\r\n"),
    *("$HOME", "`id`", "file:///x", "http://127.0.0.1/x", "a" * 300 + "/../x", "\ud800/x"),
)
every_payload = pytest.mark.parametrize("name", PAYLOADS)


def files_of(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


@every_payload
def test_a_runs_name(name: str) -> None:
    """It is that of a folder below the silo's state."""
    head = {**dict.fromkeys(ENVELOPE_TEXTS, ""), "run": name}
    with pytest.raises(BadEnvelopeError):
        Envelope.parse(sockets.pack(head, b""))


@every_payload
def test_what_a_silo_keeps_of_a_run_is_named_by_a_hash(tmp_path: Path, name: str) -> None:
    """Even where a run's name has come past the letter."""
    state = tmp_path / "a" / "state"
    law = PolicyEnforcer("silo-1", Policy(), name.encode("utf-8", "replace").decode(), state)
    law.begin("rounds: 3")
    law.admit(Request("train", 1), rounds=3)
    law.note("refused", "a reason")
    assert {path.parent for path in (tmp_path / "a").rglob("*.json*")} == {state}


@every_payload
def test_a_clients_and_an_experiments_name(tmp_path: Path, name: str) -> None:
    """They are names of folders and of files: runs/NAME, clients/NAME, silos/NAME.pub, NAME.key."""
    with pytest.raises(ValidationError):
        Experiment.model_validate({"name": name})
    with pytest.raises(ValidationError):
        Experiment.model_validate({"clients": {name: {}}})
    values = {"name": name, "server": "127.0.0.1:1", "data": {"path": "iid"}, "state": "state"}
    with pytest.raises(ValidationError):
        SiloSettings.model_validate(values)
    with pytest.raises(UserError):
        kits.make_keys(tmp_path / "kit", name)
    assert not any(path.suffix in (".key", ".pub", ".ssh") for path in tmp_path.rglob("*"))


@every_payload
def test_the_hash_of_constants(name: str) -> None:
    """It is the name of a file, on both sides."""
    header = {"message": "request", "kind": "train", "constants": name}
    if name == "":
        return  # an adapter without constants
    with pytest.raises(MessageError):
        Request.parse(pack(header, {"round": 1, "last_counted_round": 0}, {}))


def test_constants_are_kept_by_what_they_are(tmp_path: Path) -> None:
    ConstantStore(tmp_path / "constants").keep(Constants.of({"../../x": torch.zeros(1)}))
    assert len(files_of(tmp_path)) == 2 and len(files_of(tmp_path / "constants")) == 1


@pytest.fixture
def mine(tmp_path: Path) -> SiloSettings:
    home = tmp_path / "silo"
    home.mkdir()
    (home / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    values = {"name": "silo-1", "server": "127.0.0.1:1", "data": {"path": "own.jsonl"}}
    (home / "silo.yaml").write_text(yaml.safe_dump({**values, "state": "state"}))
    return settings.load(home / "silo.yaml")


def _told(name: str) -> dict[str, dict[str, Any]]:
    own = {"path": name}
    return {
        "data.path": {"data": own},
        "clients.data.path": {"clients": {"silo-1": {"data": own}, "silo-2": {"data": own}}},
        "output_dir": {"output_dir": name},
        "adapter.from": {"adapter": {"from": name}},
        "a part": {"algorithm": f"{name}.py:Evil"},
        "a part without a file": {"algorithm": name},
        "a partitioner": {"data": {"partition": {name: {}}}},
    }


@every_payload
def test_paths_in_a_servers_experiment(mine: SiloSettings, name: str) -> None:
    """None is opened, and none is in the experiment that is run: rows are those of silo.yaml."""
    for what, told in _told(name).items():
        text = yaml.safe_dump({"num_clients": 3, **told})
        OPENED.on, OPENED.seen = True, []
        try:
            job = received(text, mine)
        except JobRefusedError:
            continue
        finally:
            OPENED.on = False
            assert OPENED.seen == [], what
        assert job.experiment.data.path == str(mine.data.path), what
        assert job.experiment.output_dir is None, what
        if what == "adapter.from" and name:
            assert any("go on from a folder" in reason for reason in _reasons(mine, job)), what


def _reasons(mine: SiloSettings, job: Any) -> list[str]:
    return refusals(mine.policy, job, "0" * 64, RowCounts(100, 20))


class Opened:
    """Notes what is opened, but for the package and its libraries, between `start` and `stop`."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self.hear)  # for as long as this process lives

    def hear(self, event: str, about: tuple[Any, ...]) -> None:
        if not self.on or event != "open" or not isinstance(about[0], str):
            return
        if not any(part in about[0] for part in ("site-packages", "/usr/", "/lib/", "/hanse/")):
            self.seen.append(about[0])


OPENED = Opened()


def test_a_link_under_a_files_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "precious").write_text("precious")
    os.symlink(tmp_path / "precious", tmp_path / "state" / "asked.json")
    atomic_files.write(tmp_path / "state" / "asked.json", b"{}")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "state" / "asked.json").is_symlink()
