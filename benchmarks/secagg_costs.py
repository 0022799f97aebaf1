"""Rounds of secure sums without a model: bytes and CPU seconds of a silo, and of the server.

All silos are in this process, and each answers with bytes, as over a network. Their training
returns the same numbers at once, so that what a round takes is the protocol, and what it needs
for messages and for the journal. The processor's seconds are those of all threads.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest.mock import patch

import torch
from scale import Large

from hanse.federation import server
from hanse.federation.aggregators.mean import Mean
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import TrainResult
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.journal.run_folder import Journal, read_ledger
from hanse.security.identity import simulated
from hanse.simulation.in_process import InProcess
from hanse.tensors.serialization import Content

EXAMPLES = 100  # of each silo
JOB = "0" * 64


@dataclass(frozen=True)
class Federation:
    """Silos with an adapter of so many tensors of float32, each of so many numbers.

    neighbours: as in SecAgg; "plain": the plain mean.
    """

    silos: int
    tensors: int
    values: int
    neighbours: str | None = None

    @property
    def rule(self) -> Aggregator:
        """The aggregator."""
        if self.neighbours == "plain":
            return Mean()
        return SecAgg(neighbours=self.neighbours)  # type: ignore[arg-type]

    @property
    def adapter_bytes(self) -> int:
        """The bytes of an adapter's numbers."""
        return 4 * self.tensors * self.values


class Drawn(Large):
    """An adapter whose training sets it to drawn numbers."""

    def __init__(self, federation: Federation, seed: int) -> None:
        super().__init__(federation.tensors, federation.values)
        self._seed = seed

    def fit(self, *_: Any, **__: Any) -> TrainResult:
        draw = torch.Generator().manual_seed(self._seed)
        for parameter in self.parameters().values():
            parameter.data.normal_(0, 1e-3, generator=draw)
        return TrainResult(1, 0.1, EXAMPLES, EXAMPLES, 1.0)


@dataclass
class Spent:
    """CPU seconds of one round: of silos in the protocol's steps, of their answers, of the rest.

    protocol: by silo and kind of request. answers: by silo, messages and training included.
    """

    protocol: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    answers: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Watched(Transport):
    """Silos in this process, and the CPU seconds of their answers."""

    remote = timed = False
    max_in_flight = 1

    def __init__(self, inner: InProcess, spent: Spent) -> None:
        self._inner, self._spent = inner, spent

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: Content) -> None:
        self._inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        start = time.process_time()
        answer = self._inner.receive(timeout)
        if answer is not None:
            self._spent.answers[answer[0]] += time.process_time() - start
        return answer


@contextmanager
def watching(spent: Spent) -> Iterator[None]:
    """Count the CPU seconds of the client halves of secure sums."""

    def timed(method: Callable[..., Any], kind_of: Callable[..., str]) -> Callable[..., Any]:
        def work(rule: SecAgg, *words: Any) -> Any:
            start = time.process_time()
            result = method(rule, *words)
            key = words[-1].profile.name, kind_of(*words)
            spent.protocol[key] += time.process_time() - start
            return result

        return work

    halves: dict[str, Any] = {
        "handle": timed(SecAgg.handle, lambda kind, instruction, client: kind),
        "admit": timed(SecAgg.admit, lambda note, client: "train"),
        "seal": timed(SecAgg.seal, lambda summand, note, client: "train"),
    }
    with patch.multiple(SecAgg, **halves):
        yield


def measure(federation: Federation, rounds: int) -> dict[str, Any]:
    """The figures of a silo and round, and of the server.

    Seconds are medians over the rounds after the first, in which libraries begin, and keys of
    simulated silos are derived.
    """
    spent = Spent()
    seconds: list[tuple[Spent, float, float]] = []  # silos, server's CPU, wall clock
    with tempfile.TemporaryDirectory(prefix="hanse-secagg-") as folder, watching(spent):
        run = _run(federation, Path(folder), rounds, spent)
        log = run.journal
        loop = server.rounds(run)
        next(loop)  # round 0 trains nothing
        for _ in range(rounds):
            spent.protocol.clear()
            spent.answers.clear()
            wall, cpu = time.perf_counter(), time.process_time()
            record = next(loop)
            whole = time.process_time() - cpu - sum(spent.answers.values())
            assert len(record.clients) == federation.silos
            silos = Spent(dict(spent.protocol), dict(spent.answers))
            seconds.append((silos, whole, time.perf_counter() - wall))
        log.close()
        bytes_ = _bytes(log.folder, federation.silos, rounds)
    return {
        "silos": federation.silos,
        "adapter_bytes": federation.adapter_bytes,
        **_plan(federation),
        "bytes": bytes_,
        "cpu_seconds": _cpu_seconds(seconds[1:], federation.silos),
        "seconds_a_round": median(wall for _, _, wall in seconds[1:]),
    }


def _run(federation: Federation, folder: Path, rounds: int, spent: Spent) -> Run:
    """The run of a federation in a folder."""
    names = [f"silo-{number:03d}" for number in range(federation.silos)]
    method = Method(FedAvg(), federation.rule)

    def endpoint(name: str) -> ClientEndpoint:
        number = names.index(name)
        make: Callable[..., Learner] = lambda context, kept: Drawn(federation, number)  # noqa: E731
        return ClientEndpoint(
            profile=ClientProfile(name, EXAMPLES),
            learner=make,
            method=method.for_client(name),
            tasks={},
            store=MemoryStore(folder / "clients" / name),
            seed=0,
            identity=simulated(0, name, names),
            job=JOB,
            participants=names,
        )

    transport = Watched(InProcess([ClientProfile(n, EXAMPLES) for n in names], endpoint), spent)
    schedule = Schedule(rounds, 0, validate_every=0, test=False, evaluate_clients=False)
    of_server = Large(federation.tensors, federation.values)
    log = Journal.create(folder / "run", "")
    return Run(schedule, method, transport, lambda context, kept: of_server, {}, log)


def _plan(federation: Federation) -> dict[str, Any]:
    """The plan of a secure sum: how many others each silo shares its secrets with, and t."""
    rule = federation.rule
    if not isinstance(rule, SecAgg):
        return {"rule": "mean"}
    plan = rule.plan(federation.silos)
    return {
        "rule": "secagg",
        "neighbours": plan.neighbours,
        "complete": plan.complete,
        "threshold": plan.threshold,
        "tolerated": plan.tolerated,
    }


def _bytes(folder: Path, silos: int, rounds: int) -> dict[str, dict[str, float]]:
    """Bytes of a silo and round by kind of request, means over silos and rounds."""
    rows = [row for row in read_ledger(folder) if row.round]
    kinds = list(dict.fromkeys(row.kind for row in rows))
    return {
        kind: {
            "down": sum(row.down for row in rows if row.kind == kind) / silos / rounds,
            "up": sum(row.up for row in rows if row.kind == kind) / silos / rounds,
        }
        for kind in kinds
    }


def _cpu_seconds(seconds: Sequence[tuple[Spent, float, float]], silos: int) -> dict[str, Any]:
    """CPU seconds of a silo and round, and of the server in a round."""
    spent = [one for one, _, _ in seconds]
    kinds = list(dict.fromkeys(kind for one in spent for _, kind in one.protocol))
    by_silo = [_by_silo(one) for one in spent]
    return {
        "protocol": median(sum(one.values()) / silos for one in by_silo),
        "protocol_most_of_any_silo": median(max(one.values(), default=0.0) for one in by_silo),
        "protocol_by_kind": {
            kind: median(
                fmean(value for (_, own), value in one.protocol.items() if own == kind)
                for one in spent
            )
            for kind in kinds
        },
        "answers": median(sum(one.answers.values()) / silos for one in spent),
        "server": median(whole for _, whole, _ in seconds),
    }


def _by_silo(spent: Spent) -> dict[str, float]:
    """CPU seconds in the protocol by silo."""
    totals: dict[str, float] = defaultdict(float)
    for (name, _), value in spent.protocol.items():
        totals[name] += value
    return totals
