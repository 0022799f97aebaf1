"""A part is one file: seven kinds are added to a copy of the package; nothing else is edited."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hanse

PARTS = {
    "federation/algorithms/half_step.py": '''"""FedAvg at half the server's pace."""

from dataclasses import dataclass

from hanse.federation.algorithms.fedavg import FedAvg


@dataclass(frozen=True)
class HalfStep(FedAvg):
    """The server takes a share of the mean change."""

    pace: float = 0.5
''',
    "federation/aggregators/first_only.py": '''"""The first client's update alone."""

from dataclasses import dataclass

from hanse.federation.aggregators.mean import Mean


@dataclass(frozen=True)
class FirstOnly(Mean):
    """An aggregate of one client."""

    clients: int = 1
''',
    "federation/compression/halves.py": '''"""Updates divided on their way."""

from dataclasses import dataclass, replace

from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, scale


@dataclass(frozen=True)
class Halves(Transform):
    """A change of scale on the way."""

    factor: float = 2.0

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors=scale(update.tensors, 1 / self.factor))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors=scale(update.tensors, self.factor))
''',
    "learners/objectives/halved.py": '''"""Half of the loss of supervised fine-tuning."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hanse.federation.interfaces.learner import Learner
from hanse.learners.objectives.sft import Sft


@dataclass(frozen=True)
class Halved(Sft):
    """The mean over labelled tokens, divided."""

    divisor: float = 2.0

    def loss(self, learner: Learner, batch: Any) -> Tensor:
        return super().loss(learner, batch) / self.divisor
''',
    "evaluation/example_count.py": '''"""The examples of a split, counted."""

from dataclasses import dataclass

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task


@dataclass(frozen=True)
class ExampleCount(Task):
    """A metric of its own."""

    factor: float = 10.0

    def evaluate(self, learner: Learner, split: str) -> Scores:
        items = [self.factor for _ in learner.examples(split)]
        return Scores({"count": sum(items)}, items)
''',
    "audit/attacks/silence.py": '''"""Updates of nothing."""

from dataclasses import dataclass

from torch import Tensor

from hanse.audit.attack import Attack, Updates


@dataclass(frozen=True)
class Silence(Attack):
    """Attackers who send nearly nothing."""

    share: float = 0.0

    def sent(self, updates: Updates) -> Tensor:
        return self.share * updates.own
''',
    "journal/trackers/notes.py": '''"""Notes in a file of the run folder."""

from dataclasses import dataclass
from pathlib import Path

from hanse.journal.tracking import Following, Metrics, Tracked, Tracker


@dataclass(frozen=True)
class Notes(Tracker):
    """One line for each round."""

    file: str = "notes.txt"

    def open(self, run: Tracked) -> Following:
        return _Open(run.folder / self.file)


class _Open(Following):
    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.write_text("")

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        with self.file.open("a") as notes:
            notes.write(f"{round}\\n")

    def close(self, finished: bool) -> None:
        pass
''',
}
CHOICES = {
    "rounds": 1,
    "algorithm": {"half_step": {"pace": 0.25}},
    "aggregator": "first_only",
    "compression": [{"halves": {"factor": 4}}],
    "objective": {"halved": {"divisor": 4}},
    "evaluation": {"tasks": [{"example_count": {"factor": 3}}]},
    "report_to": "notes",
    "clients_per_pass": "off",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a copy of the package with seven new files."""
    home = tmp_path_factory.mktemp("copy")
    shutil.copytree(hanse.__path__[0], home / "hanse")
    for file, text in PARTS.items():
        (home / "hanse" / file).write_text(text)
    return home


def call(home: Path, *words: object) -> str:
    """What the copy's command line prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hanse", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(home), "COLUMNS": "200"},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_file_of_each_kind_is_listed(copy: Path) -> None:
    listed = call(copy, "parts")
    assert "half_step       The server takes a share of the mean change." in listed
    assert "first_only      An aggregate of one client." in listed
    assert "halves          A change of scale on the way." in listed
    assert "halved          The mean over labelled tokens, divided." in listed
    assert "example_count   A metric of its own." in listed
    assert "silence         Attackers who send nearly nothing." in listed
    assert "notes           One line for each round." in listed
    for setting in (
        "pace: float = 0.5",
        "clients: int = 1",
        "factor: float = 2.0",
        "divisor: float",
    ):
        assert setting in listed


def test_a_new_file_of_each_kind_is_run_by_its_name(copy: Path, experiment_file: Path) -> None:
    settings = {**yaml.safe_load(experiment_file.read_text()), **CHOICES}
    experiment_file.write_text(yaml.safe_dump(settings))
    call(copy, "run", experiment_file)
    folder = Path(settings["output_dir"])
    resolved = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert resolved["algorithm"] == {"half_step": {"pace": 0.25}}
    assert resolved["aggregator"] == {"first_only": {"clients": 1}}
    assert resolved["compression"]["upload"] == [{"halves": {"factor": 4.0}}]
    assert resolved["objective"] == {"halved": {"divisor": 4.0}}
    assert resolved["report_to"] == [{"notes": {"file": "notes.txt"}}]
    words = "compression=[]", "attack={silence: {attackers: 1, share: 0.5}}"  # which takes no codec
    assert "what the attack silence says" in " ".join(
        call(copy, "check", experiment_file, *words).split()
    )
    assert (folder / "notes.txt").read_text() == "0\n1\n"
    scores = json.loads((folder / "scores" / "test-example_count-00001.json").read_text())
    assert scores["metrics"] == {"count": 30 * 3.0}
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
