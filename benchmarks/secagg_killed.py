"""Eleven silo processes over Flower, of which some are killed in the steps of a secure sum.

A silo kills its own process, as the system would, when it is asked for a step that it must not
answer. It is started again when the round is over, or, where too few are left, when the run is
paused. The run is then repeated in one process by the clients that each round has counted: words
of masked updates add up exactly, so both must end in the same adapter, bit for bit. There each
round's sum is compared with the plain mean of the summands.
"""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from scale import alone, prepare
from scale import experiment as scaled
from secagg_repeated import repeat

from deployment import know_each_other, started
from hanse.deployment.flower.processes import free_port
from hanse.deployment.server import serve
from hanse.deployment.silo import join
from hanse.deployment.silo.policy import ROW_SETTINGS, Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.experiment.schema import Experiment
from hanse.federation.aggregators.secagg import SecAgg
from hanse.journal.run_folder import read_rounds
from hanse.observability.json_logs import LogFormat

SILOS, THRESHOLD = 11, 7
ROWS = 60 * SILOS  # fewer than the benchmark of scale has, so that silos start sooner
PATIENCE = 30.0  # seconds for a step; a silo that was started again is there by then
LONGEST = 1500.0  # seconds of the run
PAUSED = "The run is paused."


class Death(NamedTuple):
    """So many silos are killed in a round, when they are asked for a step."""

    round: int
    step: str
    silos: int


DEATHS = (
    Death(2, "shares", 2),
    Death(3, "shares", 4),
    Death(4, "train", 3),
    Death(5, "train", 4),
    Death(6, "unmask", 1),
    Death(7, "unmask", 4),
    Death(8, "train", 5),
)
ROUNDS = 9


def experiment(home: Path) -> Experiment:
    """All silos train for one step in each round."""
    values = scaled(home, SILOS, ROUNDS).resolved()
    values |= {
        "fraction_train": 1.0,
        "output_dir": str(home / "run"),
        "aggregator": {"secagg": {"threshold": THRESHOLD, "patience": PATIENCE}},
        "deployment": {"deadline": PATIENCE, "quorum": THRESHOLD},
    }
    return Experiment.model_validate(values)


def measure(home: Path) -> dict[str, Any]:
    """Run the federation, repeat it in one process, and compare."""
    prepare(home)
    rows = (home / "rows.csv").read_text().splitlines(keepends=True)
    (home / "rows.csv").write_text("".join(rows[: 1 + ROWS]))
    settings = experiment(home)
    federation = Mortals(home, settings)
    seconds = federation.run()
    counted = {row.round: row.clients for row in read_rounds(home / "run") if row.round}
    repeated = alone(repeat, settings.resolved(), home / "alone", counted)
    adapters = [_digest(home / "run"), _digest(home / "alone")]
    deaths = {death.round: death for death in DEATHS}
    by_round = [
        {
            "round": number,
            "killed": deaths[number].silos if number in deaths else 0,
            "step": deaths[number].step if number in deaths else "",
            "paused": number in federation.paused,
            "counted": len(counted[number]),
            "seconds": seconds[number],
            **repeated[number],
        }
        for number in counted
    ]
    return {
        "silos": SILOS,
        "threshold": THRESHOLD,
        "patience": PATIENCE,
        "killed": federation.killed,
        "rounds": by_round,
        "adapters": adapters,
        "same": adapters[0] == adapters[1],
    }


@dataclass
class Mortals:
    """A server, and silos that are killed and come back."""

    home: Path
    settings: Experiment
    port: int = field(default_factory=free_port)
    processes: dict[str, Any] = field(default_factory=dict)
    paused: list[int] = field(default_factory=list)
    killed: int = 0

    def run(self) -> dict[int, float]:
        """Let the run end, whatever is killed; the seconds of each round."""
        (self.home / "die").mkdir()
        know_each_other(self.home, self.settings.participant_names)
        address = serve.Address(port=self.port, kit=self.home / "kits" / "server")
        server = started(
            lambda: serve.serve(self.settings, address, logs=LogFormat.JSON), self._log("server")
        )
        try:
            for name in self.settings.participant_names:
                self._start(name)
            self._watch(server)
        finally:
            for process in (server, *self.processes.values()):
                process.terminate()
        if server.exitcode != 0:
            raise SystemExit(self._log("server").read_text()[-3000:])
        ends = {row.round: row.time for row in read_rounds(self.home / "run")}
        return {number: ends[number] - ends[number - 1] for number in ends if number}

    def _watch(self, server: Any) -> None:
        """Kill silos round by round, and start them again, until the server has ended."""
        done, end = -1, time.monotonic() + LONGEST
        while server.is_alive() and time.monotonic() < end:
            server.join(0.2)
            paused = self._log("server").read_text().count(PAUSED) > len(self.paused)
            reached = self._reached()
            if paused:
                self.paused.append(reached + 1)
                self._pardon()
            if paused or reached > done:
                self._revive()
            if reached > done:
                done = reached
                self._condemn(done + 1)

    def _reached(self) -> int:
        file = self.home / "run" / "metrics.jsonl"
        return file.read_text().count("\n") - 1 if file.exists() else -1

    def _condemn(self, round: int) -> None:
        """Choose the silos that will die in a round."""
        names = self.settings.participant_names
        self._pardon()
        for death in DEATHS:
            if death.round == round:
                for number in range(death.silos):  # others than in the round before
                    name = names[(number + round) % len(names)]
                    (self.home / "die" / f"{name}.{death.step}").touch()

    def _pardon(self) -> None:
        """Let silos live that should have died, and were not asked."""
        for order in (self.home / "die").iterdir():
            order.unlink()

    def _revive(self) -> None:
        """Start the killed silos again."""
        for name, process in list(self.processes.items()):
            if process.exitcode == -signal.SIGKILL:
                self.killed += 1
                self._start(name)

    def _start(self, name: str) -> None:
        silo = SiloSettings(
            name=name,
            server=f"127.0.0.1:{self.port}",
            data=Rows(path=self.settings.data.path),
            kit=self.home / "kits" / name,
            state=self.home / "silos" / name,
            policy=Policy(data_settings=ROW_SETTINGS, count_rounding=1),
        )
        work = partial(self._mortal, silo)
        self.processes[name] = started(work, self._log(name))

    def _mortal(self, silo: SiloSettings) -> None:
        """Take part as a silo that kills its own process where it must."""

        def before(method: Callable[..., Any], step_of: Callable[..., str]) -> Callable[..., Any]:
            def work(rule: SecAgg, *words: Any) -> Any:
                order = self.home / "die" / f"{silo.name}.{step_of(*words)}"
                if order.exists():
                    order.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(rule, *words)

            return work

        steps: dict[str, Any] = {
            "handle": before(SecAgg.handle, lambda kind, instruction, client: kind),
            "admit": before(SecAgg.admit, lambda note, client: "train"),
        }
        with patch.multiple(SecAgg, **steps):
            join.join(silo, logs=LogFormat.JSON)

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"


def _digest(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()
