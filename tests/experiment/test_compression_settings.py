"""The settings `compression` and `privacy`: short and long forms, single clients, mistakes."""

from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from samples import ROOT

NOTHING = {"upload": [], "download": [], "error_feedback": False, "collect": False}
BF16, IDENTITY = {"bf16": {}}, {"identity": {}}


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("[bf16]", {**NOTHING, "upload": [BF16]}),
        ("bf16", {**NOTHING, "upload": [BF16]}),
        ("none", NOTHING),
        ("null", NOTHING),
        ("[identity, bf16: {}]", {**NOTHING, "upload": [IDENTITY, BF16]}),
        ("{download: bf16}", {**NOTHING, "download": [BF16]}),
        (
            "{upload: [bf16], download: [identity], error_feedback: true}",
            {**NOTHING, "upload": [BF16], "download": [IDENTITY], "error_feedback": True},
        ),
    ],
)
def test_short_forms_mean_the_long_one(
    experiment_file: Path, written: str, resolved: dict[str, Any]
) -> None:
    """In a file, on the command line, and for one client."""
    for_client = load(experiment_file, [f"clients.silo-2.compression={written}"])
    assert for_client.for_client("silo-2").resolved()["compression"] == resolved
    assert for_client.for_client("silo-1").resolved()["compression"] == NOTHING
    assert load(experiment_file, [f"compression={written}"]).resolved()["compression"] == resolved
    experiment_file.write_text(experiment_file.read_text() + f"compression: {written}\n")
    assert load(experiment_file).resolved()["compression"] == resolved


def test_a_run_folder_keeps_what_was_meant(experiment_file: Path) -> None:
    """The resolved settings, read again, are the same."""
    words = ["compression=bf16", "compression.error_feedback=true"]
    words += ["clients.silo-1.compression=identity"]
    experiment = load(experiment_file, words)
    assert experiment.resolved()["compression"] == {
        **NOTHING,
        "upload": [BF16],
        "error_feedback": True,
    }
    assert Experiment.model_validate(experiment.resolved()).resolved() == experiment.resolved()
    assert experiment.resolved()["privacy"] is None


def test_one_client_keeps_what_it_does_not_override(experiment_file: Path) -> None:
    """A list stands for `upload` alone, written in a file or given from Python."""
    common = {"upload": ["bf16"], "download": ["bf16"]}
    values = {"compression": common, "clients": {"silo-1": {"compression": ["identity"]}}}
    word = "clients.silo-1.compression=[identity]"
    for experiment in (
        Experiment.model_validate(values),
        load(experiment_file, ["compression={upload: [bf16], download: [bf16]}", word]),
    ):
        own = experiment.for_client("silo-1").resolved()["compression"]
        assert own == {**NOTHING, "upload": [IDENTITY], "download": [BF16]}


def test_the_file_of_a_codec_is_found_beside_the_experiment(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment_file.parent / "mine.py").write_text((ROOT / "examples" / "my_codec.py").read_text())
    text = experiment_file.read_text()
    experiment_file.write_text(text + "compression: [{mine.py:Grid: {levels: 3}}]\n")
    monkeypatch.chdir("/")
    [codec] = load(experiment_file).resolved()["compression"]["upload"]
    assert codec == {f"{experiment_file.parent / 'mine.py'}:Grid": {"levels": 3}}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compression=bf17"], "there is no 'bf17' in compression (did you mean 'bf16'?)"),
        (["compression.upload=[bf16, bf16]"], "compression.upload names a transform twice"),
        (
            ["compression.error_feedback=true"],
            "compression.error_feedback is true, but compression names no codec",
        ),
        (["compression.uplod=bf16"], "(did you mean 'upload'?)"),
        (["privacy=gauss"], "there is no 'gauss' in privacy; there are client_dp, "),
        (["clients.silo-9.compression=bf16"], "clients.silo-9 is no client"),
        (
            ["clients.silo-1.compression=bf17"],
            "clients.silo-1: there is no 'bf17' in compression (did you mean 'bf16'?)",
        ),
        (
            [
                "compression=bf16",
                "compression.error_feedback=true",
                "clients.silo-1.compression=[]",
            ],
            "clients.silo-1: compression.error_feedback is true, but compression names no",
        ),
        (
            ["clients.silo-1.compression.error_feedback=true"],
            "clients.silo-1: compression.error_feedback is true",
        ),
        (
            ["clients.silo-1.compression.collect=true"],
            "clients.silo-1.compression.collect would change nothing",
        ),
        (["clients.silo-1.privacy=x"], "clients.silo-1 cannot override 'privacy'"),
        (["compression=[{bf16: {k: 3}}]"], "bf16 has no setting 'k'"),
        (
            ["compression={bf16: {}}"],
            "compression has the codec bf16 as a setting; write codecs as a list, such as "
            "compression: [{bf16: {setting: value}}].",
        ),
        (
            ["clients.silo-1.compression={my.py:Grid: {levels: 3}}"],
            "clients.silo-1: compression ha",
        ),
        (["compression=3"], "compression.upload is 3; it must be a list, such as [a, b]."),
        (["compression=[mean]"], "there is no 'mean' in compression"),
    ],
)
def test_mistakes(experiment_file: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(experiment_file, words)
    assert sentence in str(caught.value)


def test_a_mistake_in_a_file_has_its_line(experiment_file: Path) -> None:
    experiment_file.write_text("compression: [bf17]\n" + experiment_file.read_text())
    with pytest.raises(UserError, match=r"tiny.yaml:1: there is no 'bf17' in compression"):
        load(experiment_file)
