"""A baseline comparison trains its variants, continues after a stop, and shows its figures."""

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hanse.cli import main as cli
from hanse.cli.commands.baselines import baselines
from hanse.errors import UserError
from hanse.experiment.assembly import execute
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from hanse.simulation.baselines import runs
from samples import reviews, write_lines


@pytest.mark.parametrize(
    ("variant", "client"), [("alone-silo-2", "silo-2"), ("centralised", "pooled")]
)
def test_other_rungs_reset_the_optimizer_as_the_federation_does(
    trained: Path, variant: str, client: str
) -> None:
    """As many updates in a row as a client of the federation, each row with a fresh Adam."""
    simulated = simulate(load(trained / "seed-1" / variant / "experiment.yaml"))
    silo, tensors = simulated.clients[client], None
    for number in (1, 2, 3):
        context = RoundContext(1, number, client)
        learner = simulated.resources.learner(silo.experiment, silo.examples, context, {})
        if tensors is not None:
            learner.load(tensors)
        assert learner.fit().steps == 3  # Adam begins afresh with each fit
        tensors = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    left = load_file(trained / "seed-1" / variant / "adapter" / "adapter_model.safetensors")
    assert tensors is not None
    for name, tensor in tensors.items():
        torch.testing.assert_close(left[name], tensor, rtol=0, atol=1e-5)


def test_each_client_alone_trains_the_model_that_it_has_in_the_federation(
    experiment_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    public = write_lines(tmp_path / "public.jsonl", reviews(8, seed=7))
    words = ["algorithm=feddistill", f"data.public={public}", "rounds=1", "train.max_steps=1"]
    own = f"clients.silo-2.model.model_name_or_path={tiny_gpt2}"
    folder = runs.run(load(experiment_file, [*words, own]), [0])
    figures = _figures(folder)
    assert len(figures["variants"]) == figures["planned"]
    models = {
        name: load(folder / "seed-0" / name / "experiment.yaml").model.model_name_or_path
        for name in ("alone-silo-1", "alone-silo-2", "centralised")
    }
    assert models["alone-silo-2"] == str(tiny_gpt2)
    assert models["alone-silo-1"] == models["centralised"] != str(tiny_gpt2)


def test_clients_with_their_own_files_climb_too(experiment_file: Path, tmp_path: Path) -> None:
    lines = ["clients:\n"]
    for number, name in enumerate(("north", "south")):
        file = write_lines(tmp_path / f"{name}.jsonl", reviews(40 + 40 * number, seed=number))
        lines.append(f"  {name}: {{data: {{path: {file}}}}}\n")
    experiment_file.write_text(experiment_file.read_text() + "".join(lines))
    figures = _figures(runs.run(load(experiment_file, ["rounds=1", "train.max_steps=1"]), [0]))
    names = ["federated", "alone-north", "alone-south", "alone-north-longer", "alone-south-longer"]
    names += ["centralised", "centralised-small-batch"]
    assert [variant["name"] for variant in figures["variants"]] == names


def test_any_rung_can_be_run_again_from_its_own_settings(trained: Path, tmp_path: Path) -> None:
    for name in ("seed-1/federated", "seed-1/alone-silo-3", "seed-1/centralised"):
        words = [f"output_dir={tmp_path / name}"]
        again = simulation.run(load(trained / name / "experiment.yaml", words))
        assert _digest(again) == _digest(trained / name)


def test_a_killed_ladder_goes_on_where_it_was(
    trained: Path, experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, left = execute.finish, iter(range(12))

    def cut(*words: Any) -> None:
        if next(left) == 11:
            raise RuntimeError("power cut")
        finish(*words)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(execute, "finish", cut)
        runs.run(load(experiment_file), [0, 1])
    folder = tmp_path / "run"
    assert (_figures(folder)["done"], len(_figures(folder)["variants"])) == (11, 9)
    assert "11 of 18 variants are done" in _figures(folder)["verdict"]
    early = {p: p.stat().st_mtime_ns for p in (folder / "seed-0").rglob("*") if p.is_file()}
    runs.resume(folder)
    assert {path: path.stat().st_mtime_ns for path in early} == early, "not done again"
    assert _timeless(_figures(folder)) == _timeless(_figures(trained))


@pytest.mark.parametrize(
    ("logger", "line", "finished"),
    [
        ("simulation.baselines.runs", "alone-silo-1, ", 1),
        ("federation.exchange.inquiry", "round 1: pooled answered train", 7),
        ("federation.exchange.inquiry", "round 3: pooled answered train", 8),
    ],
)
def test_ctrl_c_stops_when_a_round_is_saved(
    experiment_file: Path, tmp_path: Path, logger: str, line: str, finished: int
) -> None:
    def press(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith(line):
            os.kill(os.getpid(), signal.SIGINT)
        return True

    log = logging.getLogger(f"hanse.{logger}")
    log.setLevel(logging.INFO)
    log.addFilter(press)
    try:
        with pytest.raises(
            UserError, match=f"stopped with {finished} of 9 .* `hanse resume .*run`"
        ):
            runs.run(load(experiment_file), [0])
    finally:
        log.removeFilter(press)
    assert _figures(tmp_path / "run")["done"] == finished
    assert _figures(runs.resume(tmp_path / "run"))["done"] == 9


def test_a_changed_ladder_is_refused(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", reviews(120))
    short = ["rounds=1", "train.max_steps=1", f"data.path={mine}"]
    folder = runs.run(load(experiment_file, short), [0])
    text = (folder / "baselines.yaml").read_text()
    (folder / "baselines.yaml").write_text(text.replace("max_steps: 1", "max_steps: 2"))
    with pytest.raises(UserError, match=r"seed-0/federated was made with other settings \(train\)"):
        runs.resume(folder)
    (folder / "baselines.yaml").write_text(text)
    write_lines(mine, reviews(121))
    with pytest.raises(UserError, match="the data have changed"):
        runs.resume(folder)
    write_lines(mine, reviews(120))
    scores = folder / "seed-0" / "centralised" / "scores" / "test-classification-00001.json"
    scores.write_text("{")
    with pytest.raises(UserError, match=r"the scores of the finished run .*/centralised are lost"):
        runs.resume(folder)
    shutil.rmtree(folder / "seed-0" / "centralised")
    assert _figures(runs.resume(folder))["done"] == 9
    (folder / "baselines.json").write_text("{")
    with pytest.raises(UserError, match=r"baselines\.json cannot be read"):
        runs.resume(folder)


IN_PLACE = ["algorithm.fedkseed.seeds=8", "adapter=none", "train.optim=sgd"]
IN_PLACE += ["train.lr_scheduler_type=constant"]


@pytest.mark.parametrize("own", [["clients_per_pass=auto"], IN_PLACE])
def test_what_each_run_decides_for_itself_is_no_change(
    experiment_file: Path, own: list[str]
) -> None:
    """A run folder has a number, or a precision, where the experiment says auto."""
    words = ["rounds=1", "train.max_steps=1", *own]
    folder = runs.run(load(experiment_file, words), [0])
    shutil.rmtree(folder / "seed-0" / "centralised")
    assert _figures(runs.resume(folder))["done"] == 9


def test_the_command_shows_the_ladder_and_resume_goes_on(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rounds=1", "train.max_steps=1"]
    out = _said(monkeypatch, capsys, "baselines", str(experiment_file), *words, "--seeds", "0,1")
    again = _said(monkeypatch, capsys, "resume", str(experiment_file.parent / "run"))
    for shown in (out, again):
        for expected in (
            "base",
            "alone, longer",
            "centralised",
            "±",
            "over 2 seeds",
            "30 test rows",
        ):
            assert expected in shown
    with pytest.raises(UserError, match="--seeds has 'two' in it"):
        baselines(experiment_file, seeds=["two"])


def _said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    monkeypatch.setattr(sys, "argv", ["hanse", *words])
    cli.main()
    return capsys.readouterr().out


def _figures(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "baselines.json").read_text())
    return content


def _timeless(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures without what depends on the clock (a message tells the seconds of its client)."""
    for variant in figures["variants"]:
        for outcome in variant["seeds"]:
            del outcome["training_seconds"], outcome["bytes"]
    return figures


def _digest(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()
