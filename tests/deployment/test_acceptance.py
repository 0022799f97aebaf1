"""hanse check --silo: what a silo would answer to an experiment, before any server runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import tiny_models
from hanse.learners.models.model_hash import model_hash
from hanse.planning import emulator as planning
from samples import ROOT

Hanse = Callable[..., Any]
ROWS = {"template": "Review: {text}\nSentiment:", "labels": {0: "negative", 1: "positive"}}


def silo_file(home: Path, name: str = "silo-1", **policy: Any) -> Path:
    """silo.yaml beside a file of rows, with the experiment's template and labels."""
    (home / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    settings = {
        "name": name,
        "server": "127.0.0.1:8000",
        "data": {"path": "own.jsonl", **ROWS},
        "state": "state",
        "policy": policy,
    }
    (home / "silo.yaml").write_text(yaml.safe_dump(settings))
    return home / "silo.yaml"


def test_an_experiment_that_a_silo_accepts(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    done = hanse("check", experiment_file, "--silo", silo_file(tmp_path))
    assert done.code == 0, done.err
    assert "silo-1 would accept these settings" in done.out
    assert not (tmp_path / "state").exists()  # the check leaves no trace at the silo


def test_all_reasons_of_a_silo_come_in_one_sentence(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    silo = silo_file(tmp_path, algorithms=["fedprox"], max_rounds=2)
    done = hanse("check", experiment_file, "--silo", silo)
    assert done.code == 2
    [sentence] = done.err.strip().splitlines()
    assert "silo-1 refuses this job: " in sentence
    assert "the algorithm fedavg is not among fedprox" in sentence
    assert "it has 3 rounds, more than 2" in sentence


def test_a_silo_that_is_sent_no_model_says_so(
    hanse: Hanse, experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    word = "deployment.deliver_model=true"
    done = hanse("check", experiment_file, word, "--silo", silo_file(tmp_path))
    assert done.code == 2
    assert "by policy.delivered_models it is sent none; name a copy by model" in done.err
    allowed = silo_file(tmp_path, delivered_models="allow")
    assert hanse("check", experiment_file, word, "--silo", allowed).code == 0
    own = silo_file(tmp_path)
    own.write_text(f"{own.read_text()}model: {tiny_llama}\n")
    assert hanse("check", experiment_file, word, "--silo", own).code == 0


def test_a_codec_that_a_silo_forbids(hanse: Hanse, experiment_file: Path, tmp_path: Path) -> None:
    silo = silo_file(tmp_path, compression=["identity"])
    assert hanse("check", experiment_file, "compression=identity", "--silo", silo).code == 0
    for word in ("compression=bf16", "clients.silo-1.compression=bf16"):
        done = hanse("check", experiment_file, word, "--silo", silo)
        assert done.code == 2
        assert "refuses this job: the compression.upload bf16 is not among identity." in done.err
    assert (
        hanse("check", experiment_file, "clients.silo-2.compression=bf16", "--silo", silo).code == 0
    )


def test_a_file_that_differs_from_the_experiments(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "my_codec.py"
    copy.write_text((ROOT / "examples" / "my_codec.py").read_text())
    silo = silo_file(tmp_path, compression=["my_codec.py:Grid"])
    words = [f"compression=[{ROOT}/examples/my_codec.py:Grid]", "--silo", silo]
    assert hanse("check", experiment_file, *words).code == 0
    copy.write_text(copy.read_text() + "# changed\n")
    done = hanse("check", experiment_file, *words)
    assert done.code == 2
    assert "silo-1 has another file for my_codec.py:Grid than the server" in done.err


def test_a_job_for_other_silos(hanse: Hanse, experiment_file: Path, tmp_path: Path) -> None:
    done = hanse("check", experiment_file, "--silo", silo_file(tmp_path, name="silo-9"))
    assert done.code == 2 and "has no client silo-9" in done.err


def test_labels_that_a_server_finds_in_the_rows_are_compared(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    silo = silo_file(tmp_path)
    silo.write_text(silo.read_text().replace("negative", "bad"))
    done = hanse("check", experiment_file, "data.labels={}", "--silo", silo)
    assert done.code == 2
    assert "silo-1 has other label words in its silo.yaml than the experiment" in done.err


def test_a_silo_looks_whether_the_model_is_an_emulator(
    hanse: Hanse, experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    whole, emulator = tmp_path / "whole", tmp_path / "emulator"
    tiny_models.save_llama(whole, layers=4)
    planning.make(str(whole), emulator, 1, 1, "layer_drop", None)
    word = f"model.model_name_or_path={emulator}"
    for more in ((), ("deployment.deliver_model=true",)):
        silo = silo_file(tmp_path, emulators="refuse", delivered_models="allow")
        done = hanse("check", experiment_file, word, *more, "--silo", silo)
        assert done.code == 2 and "which policy.emulators refuses" in done.err
    plain = silo_file(tmp_path, emulators="require")
    done = hanse("check", experiment_file, "--silo", plain)
    assert done.code == 2 and "policy.emulators requires one" in done.err
    assert hanse("check", experiment_file, word, "--silo", plain).code == 0
    knows = silo_file(tmp_path, models=[model_hash(whole), model_hash(emulator)])
    done = hanse("check", experiment_file, word, "--silo", knows)
    assert done.code == 0 and "note: silo-1 knows the whole model" in done.out
