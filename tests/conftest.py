"""Tiny models and data, and the command line in this process."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_models
from hanse.cli import main as cli
from patience import patience, slowness
from samples import Outcome, empty_report, reviews, write_experiment, write_lines

# Seconds after which a test is taken to hang, on a quiet machine.
LIMIT, LIMIT_END_TO_END = 300.0, 1200.0


def pytest_configure() -> None:
    """Measure the machine once, before there are workers; let tests send Ctrl-C.

    A shell lets what it starts in the background of a script ignore Ctrl-C, and so would all that
    the tests start.
    """
    slowness()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its limit, longer on a slow machine."""
    for item in items:
        usual = LIMIT_END_TO_END if item.get_closest_marker("end_to_end") else LIMIT
        own = item.get_closest_marker("timeout")
        limit = patience(own.args[0] if own else usual)
        item.add_marker(pytest.mark.timeout(limit), append=False)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process leave an empty report: its plots take longer than a tiny run itself.

    Reports have tests of their own, which write them, and runs in processes of their own.
    """
    monkeypatch.setattr("hanse.experiment.assembly.execute.write_report", empty_report)


@pytest.fixture(autouse=True)
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each test is a user of its own, who has let no code run yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setattr("hanse.security.trusted_code._granted", {})


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama: 2 layers, hidden size 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_models.save_llama(folder)
    return folder


@pytest.fixture(scope="session")
def other_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama whose tokenizer knows other words than those of the reviews."""
    folder = tmp_path_factory.mktemp("models") / "other-llama"
    tiny_models.save_llama(folder, ["the quick brown fox jumps over the lazy dog"] * 5)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random GPT-2 (its matrices are Conv1D): 2 layers, hidden size 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    tiny_models.save_gpt2(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT without a head: 2 layers, hidden size 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    tiny_models.save_bert(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random T5: 2 layers, hidden size 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    tiny_models.save_t5(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BART: 2 layers, hidden size 32."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bart"
    tiny_models.save_bart(folder)
    return folder


@pytest.fixture(scope="session")
def review_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 labelled reviews as .jsonl."""
    return write_lines(tmp_path_factory.mktemp("data") / "reviews.jsonl", reviews(160))


@pytest.fixture
def experiment_file(tmp_path: Path, tiny_llama: Path, review_file: Path) -> Path:
    """A small experiment that runs in about a second."""
    return write_experiment(tmp_path, tiny_llama, review_file)


@pytest.fixture
def hanse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Call the command line in an empty folder, as a shell would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # which pytest's workers have

    def call(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["hanse", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call
