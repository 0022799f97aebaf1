"""Codecs and mechanisms of privacy at a silo: its own, and those that it does not allow."""

from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.silo.job import JobRefusedError, received
from hanse.deployment.silo.refusals import settings_refusals
from hanse.experiment.loading import load
from hanse.journal.yaml_text import dump
from policy_checks import silo

CODEC = """
from dataclasses import dataclass
from pathlib import Path

from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces.mechanism import Mechanism

Path({marker!r}).write_text("was run")


@dataclass(frozen=True)
class Mine(Identity, Mechanism):
    level: int = 1
"""


@pytest.fixture
def told(experiment_file: Path) -> dict[str, Any]:
    """The experiment that the server sends."""
    return load(experiment_file).resolved()


def test_a_silo_takes_the_codecs_that_the_server_gives_it(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    told["compression"] = {"upload": ["identity"], "download": ["bf16"], "error_feedback": True}
    told["clients"] = {
        "silo-1": {"compression": {"upload": ["bf16"]}},
        "silo-2": {"compression": {"download": []}},
    }
    job = received(dump(told), silo(tmp_path / "a"))
    assert job.experiment.clients == {}
    assert job.experiment.resolved()["compression"] == {
        "upload": [{"bf16": {}}],
        "download": [{"bf16": {}}],
        "error_feedback": True,
        "collect": False,
    }


def test_a_codec_for_this_silo_alone_is_judged_too(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {"silo-1": {"compression": {"upload": ["bf16"]}}}
    mine = silo(tmp_path / "a", "{compression: [identity]}")
    [reason] = settings_refusals(mine.policy, received(dump(told), mine))
    assert reason == "the compression.upload bf16 is not among identity"


@pytest.mark.parametrize("place", ["upload", "download", "client", "privacy"])
@pytest.mark.parametrize("allowed", [False, True])
def test_code_of_a_server_is_not_run(
    tmp_path: Path, told: dict[str, Any], place: str, allowed: bool
) -> None:
    """It is refused, or this silo's own file of that name is used."""
    theirs, own = tmp_path / "marker", tmp_path / "own-marker"
    (tmp_path / "mine.py").write_text(CODEC.format(marker=str(theirs)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.py").write_text(CODEC.format(marker=str(own)))
    spec = {f"{tmp_path}/mine.py:Mine": {"level": 3}}
    if place == "client":
        told["clients"] = {"silo-1": {"compression": {"upload": [spec]}}}
    elif place == "privacy":
        told["privacy"] = spec
    else:
        told["compression"][place] = [spec]
    setting = "mechanisms" if place == "privacy" else "compression"
    if not allowed:
        with pytest.raises(JobRefusedError, match="runs no code that a server names"):
            received(dump(told), silo(tmp_path / "a"))
        assert not theirs.exists() and not own.exists()
        return
    mine = silo(tmp_path / "a", f"{{{setting}: ['mine.py:Mine']}}")
    job = received(dump(told), mine)
    mine_spec = {f"{tmp_path / 'a' / 'mine.py'}:Mine": {"level": 3}}
    compression = job.experiment.compression
    assert mine_spec in (*compression.upload, *compression.download, job.experiment.privacy)
    assert own.exists() and not theirs.exists()
    assert list(settings_refusals(mine.policy, job)) == []


def test_what_is_no_list_of_codecs_is_refused(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {"silo-1": {"compression": {"upload": [["bf16"]]}}}
    with pytest.raises(JobRefusedError, match="not valid here"):
        received(dump(told), silo(tmp_path / "a"))
