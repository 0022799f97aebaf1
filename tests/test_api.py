"""The Python API: runs from a program, and what is read from their folders."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from rich.file_proxy import FileProxy
from transformers import AutoTokenizer

import hanse
from hanse.api import _words
from hanse.errors import StoppedError, UserError
from hanse.journal.run_folder import read_rounds


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_run_from_a_program_is_that_of_the_command(
    experiment_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = hanse.run(experiment_file, rounds=2, progress=False)
    assert capfd.readouterr() == ("", "")
    assert run.folder == tmp_path / "run" and run.finished and run == hanse.load_run(run.folder)
    assert run.experiment["rounds"] == 2
    records = read_rounds(run.folder)
    assert [row["round"] for row in run.metrics] == [0, 1, 2]
    last = run.metrics[-1]
    assert last["test_accuracy"] == records[2].test["accuracy"]
    assert last["validation_loss"] == records[2].validation["loss"]
    assert last["train_loss"] == records[2].train["loss"]
    assert last["bytes_up"] == records[2].bytes.up > 0
    assert last["seconds"] == sum(records[2].seconds.values())
    assert "test_accuracy" not in run.metrics[1]
    clients = {row["client"]: row["accuracy"] for row in run.client_metrics if row["round"] == 2}
    assert clients == {n: scores["accuracy"] for n, scores in records[2].client_test.items()}
    with pytest.raises(UserError, match="has no report yet") as no_report:
        (run.folder / "report.html").unlink(missing_ok=True)
        _ = run.report
    assert isinstance(no_report.value, UserError)
    (run.folder / "report.html").write_text("")
    assert run.report == run.folder / "report.html"


def test_the_adapter_is_loaded_with_its_base_model(experiment_file: Path) -> None:
    run = hanse.run(experiment_file, rounds=1, progress=False)
    assert run.adapter.path == run.folder / "adapter"
    ids = AutoTokenizer.from_pretrained(run.adapter.path)("great film", return_tensors="pt")
    model = run.adapter.load()
    with torch.no_grad():
        adapted = model(**ids).logits
        with model.disable_adapter():
            base = model(**ids).logits
    assert type(model).__name__.startswith("PeftModel")
    assert (adapted - base).abs().max() > 1e-4


def test_settings_may_be_a_mapping_and_overrides_nested(
    experiment_file: Path, tmp_path: Path
) -> None:
    settings = yaml.safe_load(experiment_file.read_text())
    run = hanse.run(
        settings,
        progress=False,
        rounds=1,
        output_dir=tmp_path / "other",
        train={"learning_rate": 1e-05, "max_steps": 2},
        **{"adapter.lora.r": 2},
    )
    assert run.folder == tmp_path / "other"
    train = run.experiment["train"]
    assert train["learning_rate"] == 1e-05 and train["max_steps"] == 2
    assert run.experiment["adapter"]["lora"]["r"] == 2
    assert run.experiment["data"]["test"] == settings["data"]["test"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rounds": -1}, "rounds"),
        ({"round": 3}, "round"),
        ({"rounds": object()}, "is no value of a setting"),
    ],
)
def test_mistakes_are_user_errors(
    overrides: dict[str, object], message: str, experiment_file: Path
) -> None:
    with pytest.raises(UserError, match=message):
        hanse.run(experiment_file, progress=False, **overrides)


def test_what_is_no_finished_run(experiment_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        hanse.load_run(tmp_path)
    with pytest.raises(UserError):
        hanse.run(tmp_path / "absent.yaml")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "experiment.yaml").write_text("rounds: 3\n")
    run = hanse.load_run(str(tmp_path / "begun"))
    assert not run.finished and run.metrics == []
    with pytest.raises(UserError, match="is not finished; run `hanse resume"):
        _ = run.adapter


def test_progress_is_logged_as_by_the_command(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("hanse")
    monkeypatch.setattr(log, "hasHandlers", lambda: False)
    before = list(log.handlers), log.level
    hanse.run(experiment_file, rounds=1)
    assert "round 1: test accuracy" in capfd.readouterr().err
    assert (list(log.handlers), log.level) == before


def test_log_lines_do_not_break_the_view_on_a_terminal(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    log = logging.getLogger("hanse")
    monkeypatch.setattr(log, "hasHandlers", lambda: False)
    monkeypatch.setattr("sys.stderr", screen)
    console = Console(file=screen, width=80, force_terminal=True)
    monkeypatch.setattr("hanse.cli.options.console", console)
    streams = []

    def run(settings: object) -> Path:
        streams.extend(handler.stream for handler in log.handlers)
        log.info("a line")
        return Path("run")

    monkeypatch.setattr("hanse.simulation.run.run", run)
    assert hanse.run(experiment_file) == hanse.Run(Path("run"))
    assert [type(stream) for stream in streams] == [FileProxy], "rich prints above what it draws"
    assert "a line" in screen.getvalue()


def test_ctrl_c_before_the_rounds_is_a_user_error(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hanse.simulation.run.simulate", stopped)
    with pytest.raises(StoppedError, match="stopped before anything was saved"):
        hanse.run(experiment_file, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("label", ["a=b", "c.d"])
def test_labels_may_have_the_signs_of_overrides(label: str) -> None:
    words = _words("data", {"labels": {label: "yes"}, "split_seed": 1})
    assert words == [f'data.labels={{"{label}": "yes"}}', "data.split_seed=1"]


def test_the_table_as_pandas_has_it(experiment_file: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = hanse.run(experiment_file, rounds=1, progress=False)
    table = run.metrics.to_pandas()
    assert isinstance(table, pandas.DataFrame) and list(table["round"]) == [0, 1]


def test_importing_hanse_imports_nothing_heavy() -> None:
    code = (
        "import sys, hanse; assert 'hanse.api' not in sys.modules\n"
        "hanse.run, hanse.load_run, hanse.Run; assert 'run' in dir(hanse)\n"
        "print(*({'torch', 'transformers', 'peft', 'pandas', 'matplotlib'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        hanse.absent  # noqa: B018
