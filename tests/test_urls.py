"""An address where a model, data, an adapter or an encoder belongs: nobody is asked, one sentence.

A canary on this machine counts whoever connects; the hub's address is the canary's, too.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.silo import settings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.experiment.overrides import merge
from hanse.journal.yaml_text import dump
from real_federation import TRUSTING
from samples import Outcome, reviews, write_lines

Hanse = Callable[..., Outcome]
FORMS = (
    "http://127.0.0.1:{port}/owner/name",
    "http://localhost:{port}/rows.jsonl",
    "//127.0.0.1:{port}/name",
    "127.0.0.1:{port}/name",
    "hf://127.0.0.1:{port}/name",
    "file://127.0.0.1:{port}/etc/hostname",
)


class Canary:
    """Listens on this machine, and counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.visits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    found = Canary()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{found.port}")
    yield found
    found.close()


def test_the_canary_sings(canary: Canary) -> None:
    for _ in range(2):
        socket.create_connection(("127.0.0.1", canary.port)).close()
    done = threading.Event()
    for _ in range(100):
        if canary.visits == 2:
            break
        done.wait(0.05)
    assert canary.visits == 2


def _tokenizer(url: str) -> dict[str, Any]:
    """An adapter for which PEFT would load a tokenizer."""
    asked = {"num_virtual_tokens": 2, "prompt_tuning_init": "TEXT"}
    asked |= {"prompt_tuning_init_text": "a film", "tokenizer_name_or_path": url}
    return {"peft": {"method": "prompt_tuning", "settings": asked}}


# What a user may write: the words that change an experiment.
OVERRIDES: dict[str, Callable[[str], list[str]]] = {
    "model": lambda url: [f"model.model_name_or_path={url}"],
    "data.path": lambda url: [f"data.path={url}"],
    "data.test": lambda url: [f"data.test={url}"],
    "data.validation": lambda url: [f"data.validation={url}"],
    "adapter.from": lambda url: [f"adapter={json.dumps({'from': url})}"],
    "encoder": lambda url: [f"data.partition={json.dumps({'cluster': {'encoder': url}})}"],
    "tokenizer": lambda url: [f"adapter={json.dumps(_tokenizer(url))}"],
}


def _one_sentence(outcome: Outcome, url: str) -> None:
    said = outcome.err.strip().splitlines()
    assert outcome.code == 2, outcome
    assert [line for line in said if line.startswith("hanse: ")] == said[-1:], outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert url in said[-1], said


@pytest.mark.parametrize("what", OVERRIDES)
@pytest.mark.parametrize("form", FORMS)
def test_a_users_url_is_answered_in_a_sentence(
    hanse: Hanse, experiment_file: Path, canary: Canary, what: str, form: str
) -> None:
    url = form.format(port=canary.port)
    _one_sentence(hanse("check", experiment_file, *OVERRIDES[what](url)), url)
    assert canary.visits == 0


# What a user may give a command beside an experiment.
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "evaluate": lambda url: ["evaluate", "run", "--data", url],
    "chat": lambda url: ["chat", url, "--prompt", "a film"],
    "report": lambda url: ["report", url],
    "init": lambda url: ["init", "--from", url],
    "init's model": lambda url: ["init", "--from", "rows.jsonl", "--model", url],
    "run": lambda url: ["run", url],
    "hash": lambda url: ["kit", "hash", url],
    "join": lambda url: ["join", url],
}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_url_for_a_command_is_answered_in_a_sentence(
    hanse: Hanse,
    experiment_file: Path,
    tmp_path: Path,
    canary: Canary,
    what: str,
    form: str,
) -> None:
    if what == "evaluate":
        hanse("run", experiment_file, "rounds=1", "train.max_steps=1")
    write_lines(tmp_path / "rows.jsonl", reviews(60))
    url = form.format(port=canary.port)
    _one_sentence(hanse(*COMMANDS[what](url)), url.removeprefix("//").split("//")[-1])
    assert canary.visits == 0


# What a server may write for a silo, at the top or for this silo alone.
JOBS: dict[str, Callable[[str], dict[str, Any]]] = {
    "model": lambda url: {"model": {"model_name_or_path": url}},
    "data.path": lambda url: {"data": {"path": url}},
    "data.test": lambda url: {"data": {"test": url}},
    "adapter.from": lambda url: {"adapter": {"from": url}},
    "encoder": lambda url: {"data": {"partition": {"cluster": {"encoder": url}}}},
    "tokenizer": lambda url: {"adapter": _tokenizer(url)},
    "base model of an adapter": lambda url: {"adapter": {"lora": {"base_model_name_or_path": url}}},
}
LENIENT = {**TRUSTING, "adapters": ["from", "lora", "peft"]}
# What a silo never reads of a server's words, so that the job may be done.
UNREAD = {("data.path", False), ("data.test", True), ("encoder", True)}


@pytest.fixture
def rows(experiment_file: Path) -> str:
    """The hash of the rows that the experiment divides."""
    return divide(load(experiment_file)).digest


@pytest.mark.parametrize("for_it_alone", [False, True])
@pytest.mark.parametrize("what", JOBS)
@pytest.mark.parametrize("form", FORMS[:4])
def test_a_servers_url_is_refused_in_a_sentence(
    experiment_file: Path,
    review_file: Path,
    tmp_path: Path,
    rows: str,
    canary: Canary,
    caplog: pytest.LogCaptureFixture,
    what: str,
    form: str,
    for_it_alone: bool,
) -> None:
    """By a silo with the most lenient policy that may ask the hub, too."""
    caplog.set_level(logging.WARNING)
    values = {"name": "silo-1", "server": "127.0.0.1:1", "data": {"path": str(review_file)}}
    values |= {"state": "state", "hub": True, "policy": LENIENT}
    (tmp_path / "silo.yaml").write_text(yaml.safe_dump(values))
    resident = SiloWorker(settings.load(tmp_path / "silo.yaml"))
    told = load(experiment_file, ["clients_per_pass=off"]).resolved() | {"output_dir": None}
    asked = JOBS[what](form.format(port=canary.port))
    if for_it_alone:
        asked = {"clients": {"silo-1": asked}}
    elif "adapter" in asked:
        told["adapter"] = {}
    answer = SiloReply.parse(resident.answer(Envelope("a1", dump(merge(told, asked)), rows).pack()))
    if (what, for_it_alone) in UNREAD:
        assert answer.profile is not None
    else:
        assert answer.profile is None and answer.error
        assert caplog.messages[-1].startswith("refused: ") and caplog.messages[-1].endswith(".")
    assert "Traceback" not in caplog.text
    assert canary.visits == 0
