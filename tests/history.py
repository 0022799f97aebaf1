"""A run folder watched from outside, and the promises that it breaks.

Nothing here calls the code that writes the folder: the lines are read as text. Only the replay
trains again, in one process, with exactly the updates that the run says it has counted.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from hanse.experiment import loading
from hanse.experiment.assembly import execute
from hanse.experiment.assembly.assemble import simulate
from hanse.federation.client import respond
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal import yaml_text
from hanse.journal.run_folder import Journal
from hanse.simulation.in_process import InProcess
from real_federation import digest

STATE = re.compile(r"(\d{5})-([0-9a-f]{64})\.safetensors")
MODEL = "algorithm.model/"  # how the names of its tensors begin in a checkpoint

Row = dict[str, Any]


class History:
    """What a run folder said each time that somebody looked at it.

    silos: the names that may take part. quorum: the fewest updates of a round.
    """

    def __init__(self, folder: Path, silos: Sequence[str], quorum: int) -> None:
        self.folder, self.silos, self.quorum = folder, silos, quorum
        self.broken: list[str] = []
        self.last = -1  # the newest round that was seen committed
        self._states: dict[int, str] = {}  # by round, the hash in its checkpoint's name
        self._lines: dict[tuple[str, int], list[str]] = {}  # by file and committed round

    def look(self) -> None:
        """Compare the folder with what it said before."""
        states = _states(self.folder)
        if not states:
            if self.last >= 0:
                self._break(f"round {self.last} was committed, and no checkpoint is left")
            return
        newest = max(states)
        if newest < self.last:
            self._break(f"round {self.last} was committed, and the newest is {newest} now")
        self.last = max(newest, self.last)
        for number, state in states.items():
            if self._states.setdefault(number, state) != state:
                self._break(f"round {number} was committed with two states")
        for name in ("metrics", "ledger"):
            found = _by_round(self.folder / f"{name}.jsonl")
            for number in range(self.last + 1):
                lines = [json.dumps(row) for row in found[number]]
                if self._lines.setdefault((name, number), lines) != lines:
                    self._break(f"the lines of round {number} in {name}.jsonl were changed")

    def judge(self, rounds: int) -> list[str]:
        """All promises that a run of so many rounds has broken, one sentence each."""
        self.look()
        metrics, ledger = (
            _by_round(self.folder / f"{name}.jsonl") for name in ("metrics", "ledger")
        )
        numbers = [row["round"] for row in _rows(self.folder / "metrics.jsonl")]
        if numbers != list(range(rounds + 1)):
            self._break(f"the rounds are {numbers}")
        for number in range(1, rounds + 1):
            for record in metrics[number]:
                self._judge_round(number, record, ledger[number])
        return self.broken

    def counted(self) -> dict[int, list[str]]:
        """The silos of each round whose updates the run says it has counted."""
        return {
            row["round"]: row["clients"]
            for row in _rows(self.folder / "metrics.jsonl")
            if row["round"]
        }

    def _judge_round(self, number: int, record: Row, ledger: Sequence[Row]) -> None:
        used = record["clients"]
        if len(set(used)) < len(used):
            self._break(f"round {number} counts a silo twice: {used}")
        if strange := set(used) - set(self.silos):
            self._break(f"round {number} counts {sorted(strange)}, who take no part")
        if len(used) < self.quorum:
            self._break(
                f"round {number} counts {len(used)} updates, and the quorum is {self.quorum}"
            )
        weights = {
            row["client"]: row["weight"]
            for row in ledger
            if row["kind"] == "train" and not {"late", "error"} & row.keys() and "weight" in row
        }
        if missing := set(used) - weights.keys():
            self._break(f"round {number} counts {sorted(missing)}, and no answer of theirs came")
        elif record["weight"] != sum(weights[name] for name in set(used)):
            self._break(f"the weight of round {number} is not that of its updates, each once")

    def _break(self, what: str) -> None:
        if what not in self.broken:
            self.broken.append(what)


def replayed(
    experiment: Path, folder: Path, counted: Mapping[int, Sequence[str]], *words: str
) -> str:
    """The hash of the adapter when in each round exactly these clients answer, each once."""
    words = (*words, "deployment.quorum=1", f"output_dir={folder}")  # the history is what counts
    made = simulate(loading.load(experiment, words))
    federation = _Chosen(made.profiles, lambda name: made.endpoint(folder / "clients", name))
    federation.counted = counted
    federation.max_in_flight = None  # a request that nobody hears of holds up no other one
    journal = Journal.create(folder, yaml_text.dump(made.experiment.resolved()))
    return digest(execute.go(made, made.run(journal, federation)))


def mean_of(
    experiment: Path, folder: Path, before: bytes, number: int, clients: Sequence[str], *words: str
) -> dict[str, Tensor]:
    """A checkpoint's model moved by the weighted mean of what these clients train in a round.

    The mean is taken here, in float64. before: the checkpoint's content.
    """
    made = simulate(loading.load(experiment, words))
    model = model_of(before)
    request = Request("train", number, 0, Instruction(model)).pack()
    updates = [
        Reply.parse(respond(made.endpoint(folder, name), request)).update for name in clients
    ]
    whole = sum(update.weight for update in updates)
    return {
        name: tensor.double()
        + sum(update.weight / whole * update.tensors[name].double() for update in updates)
        for name, tensor in model.items()
    }


def model_of(checkpoint: bytes) -> dict[str, Tensor]:
    """The global model in a checkpoint's content."""
    found = safetensors.torch.load(checkpoint)
    return {
        name.removeprefix(MODEL): tensor for name, tensor in found.items() if name.startswith(MODEL)
    }


class _Chosen(InProcess):
    """Clients in this process, some of which never hear of some rounds."""

    counted: Mapping[int, Sequence[str]]

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind != "train" or client in self.counted[request.round]:
            super().send(client, message)


def _states(folder: Path) -> dict[int, str]:
    """By round, the hash that its checkpoint has in its name."""
    found = (STATE.fullmatch(file.name) for file in (folder / "state").glob("*.safetensors"))
    return {int(match[1]): match[2] for match in found if match}


def _rows(file: Path) -> list[Row]:
    """The whole lines of a file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(True) if line[-1] == "\n"]


def _by_round(file: Path) -> dict[int, list[Row]]:
    found = defaultdict(list)
    for row in _rows(file):
        found[row["round"]].append(row)
    return found
