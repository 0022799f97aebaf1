"""10,000 simulated clients, 100 a round: is memory flat, and what does a client cost?

A random Llama of 2 layers, 32 wide, learns from 40,000 invented rows that are dealt to the clients.
Start-up is measured with 100, 1,000 and 10,000 of them, the first time and when the rows' tokens
are kept from before. The server half is measured by itself, with an adapter of 32 MB and replies
that are read from disk: what it has in memory beyond the model while clients work, and at most.

Gates: resident memory after round 20 ≤ 1.05 × that after round 2; at most 5 ms a client beyond its
training, one by one and 16 clients per pass; 2 adapters (a sum in float64) beyond the model while
clients work, and 2.25 at most until the step. Since other programs may use
the processor, too, seconds are the processor's, or the clock's times the share of it that this one
had. Writes benchmarks/results/scale.json. Linux only: memory is read from /proc.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import local_model
import torch
from measured import keep, results
from torch.nn import Parameter

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.dataset import federated_dataset
from hanse.experiment.schema import Experiment
from hanse.federation import server
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.exchange.spool import Spool
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.journal import yaml_text
from hanse.journal.round_costs import training_seconds
from hanse.journal.run_folder import Journal
from hanse.simulation.clients_per_pass import decided
from hanse.simulation.in_process import in_process
from hanse.tensors.serialization import Content

ROWS = 40_000
A_ROUND = 100  # clients
CLIENTS_PER_PASS = ("off", 16)
WORDS = ("film", "actor", "plot", "scene", "story", "music", "camera", "ending", "long", "short")
LABELS = {"negative": ("dull", "awful", "flat"), "positive": ("great", "lovely", "warm")}
ADAPTER = 32 * 2**20  # bytes of the server's measurement, in tensors of 1 MB
REPLIES = 8


def prepare(home: Path) -> None:
    """Write the model and the rows."""
    words = [*WORDS, *LABELS, *sum(LABELS.values(), ())]
    local_model.write(home / "model", words, layers=2, width=32, heads=4)
    draw = random.Random(0)
    with (home / "rows.csv").open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(ROWS):
            label = draw.choice(list(LABELS))
            said = [*draw.choices(WORDS, k=draw.randint(2, 9)), *draw.choices(LABELS[label], k=3)]
            file.write(f"{' '.join(said)} {number},{label}\n")


def experiment(home: Path, clients: int, rounds: int, size: str | int = "off") -> Experiment:
    """A round trains 100 clients for one step of 4 rows each."""
    return Experiment.model_validate(
        {
            "rounds": rounds,
            "num_clients": clients,
            "clients_per_pass": size,
            "fraction_train": min(1.0, A_ROUND / clients),
            "model": {"model_name_or_path": str(home / "model"), "bf16": False},
            "adapter": {"lora": {"r": 4}},
            "data": {
                "path": str(home / "rows.csv"),
                "test": 0,
                "validation": 0,
                "client_test": 0.0,
            },
            "objective": "classify",
            "train": {"max_steps": 1, "per_device_train_batch_size": 4},
            "evaluation": {"clients": False, "validate_every": 0, "test": False},
        }
    )


def startup(home: Path, clients: int) -> float:
    """Seconds of the processor until the first round could begin."""
    start = time.process_time()
    simulation = simulate(experiment(home, clients, 1))
    with tempfile.TemporaryDirectory(dir=home) as folder:
        federated_dataset.note(Path(folder), simulation.dataset, simulation.experiment)
    return time.process_time() - start


def startups(home: Path, sizes: list[int], repeats: int) -> dict[str, dict[int, list[float]]]:
    """Start-up by the number of clients: without kept tokens, and with them."""
    found: dict[str, dict[int, list[float]]] = {
        "first": {size: [] for size in sizes},
        "again": {size: [] for size in sizes},
    }
    startup(home, sizes[0])  # what is imported when first used
    for _ in range(repeats):
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=home) as cache:
                os.environ["HANSE_CACHE"] = cache
                for seconds in found.values():
                    seconds[size].append(startup(home, size))
    return found


def run(home: Path, clients: int, rounds: int, size: str | int) -> dict[str, Any]:
    """Resident bytes after each round, and each round's seconds a client beyond its training."""
    chosen = decided(simulate(experiment(home, clients, rounds, size)))
    log = Journal.create(home / f"run-{size}", yaml_text.dump(chosen.experiment.resolved()))
    memory, beyond = [], []
    start, worked = time.perf_counter(), time.process_time()
    before = start
    for record in server.rounds(chosen.run(log, in_process(chosen, log.folder))):
        now = time.perf_counter()
        memory.append(resident())
        if record.round:
            trained = training_seconds(record.seconds) + record.seconds["evaluation"]
            beyond.append((now - before - trained) / len(record.clients))
        before = time.perf_counter()
    log.close()
    share = (time.process_time() - worked) / (time.perf_counter() - start)
    each = statistics.median(beyond) * min(1.0, share)
    growth = memory[-1] / memory[2]
    return {
        **{
            "clients_per_pass": chosen.experiment.clients_per_pass,
            "resident": memory,
            "growth": growth,
        },
        **{"clock_seconds_beyond_training": beyond, "processor_share": share},
        "seconds_a_client_beyond_training": each,
    }


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most that it has held since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget() -> None:
    """Let the peak begin anew; what was freed goes back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


class Large(Learner):
    """Nothing but an adapter."""

    def __init__(self, tensors: int = ADAPTER // 2**20, values: int = 2**18) -> None:
        self._live = {f"{n:02d}": Parameter(torch.zeros(values)) for n in range(tensors)}

    def parameters(self) -> dict[str, Parameter]:
        return self._live

    def examples(self, split: str) -> tuple[()]:
        return ()

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    batch = forward = fit = save = _none


class Stored(Transport):
    """Clients whose replies lie on disk, so that only the server's half is in memory."""

    max_in_flight = 1

    def __init__(self, update: Update) -> None:
        self._replies: dict[tuple[str, int], Content] = {}
        self._asked: list[str] = []
        self.round = 1
        self.held: list[int] = []  # bytes while a client works
        self.most: list[int] = []  # and at most, up to then
        spool = Spool()
        for profile in self.profiles():
            for number in (1, 2):
                parts = Reply(profile.name, "train", number, update).parts()
                self._replies[profile.name, number] = spool.write(parts)

    def profiles(self) -> list[ClientProfile]:
        return [ClientProfile(f"client-{number:02d}", 1) for number in range(REPLIES)]

    def send(self, client: str, message: Content) -> None:
        self._asked.append(client)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        if not self._asked:
            return None
        self.most.append(peak())
        forget()
        self.held.append(resident())
        client = self._asked.pop(0)
        return client, self._replies[client, self.round]


def serve(home: Path) -> dict[str, Any]:
    """What the server holds beyond the model, in adapters, as it counts reply after reply."""
    learner = Large()
    own = {name: torch.full_like(value.data, 0.1) for name, value in learner.parameters().items()}
    clients = Stored(Update(own, {"loss": 1.0}))
    del own
    log = Journal.create(home / "served", "")
    schedule = Schedule(2, 0, validate_every=0, test=False, evaluate_clients=False)
    make: Callable[..., Learner] = lambda context, kept: learner  # noqa: E731
    whole = Run(schedule, Method(FedAvg(), Mean()), clients, make, {}, log)
    rounds: Iterator[Any] = server.rounds(whole)
    next(rounds)
    next(rounds)  # what a round needs for the first time is there, and the model
    forget()
    model = resident()
    clients.round, clients.held, clients.most = 2, [], []
    next(rounds)
    clients.most.append(peak())
    log.close()
    return {
        "adapter_bytes": ADAPTER,
        "held_while_clients_work": [(held - model) / ADAPTER for held in clients.held],
        "at_most": [(most - model) / ADAPTER for most in clients.most[1:]],
    }


def alone(work: Callable[..., Any], *words: Any) -> Any:
    """Do it in a fresh process, whose memory nothing else has used."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, words)


def keep_served() -> None:
    """Measure the server half anew, among the other figures as they were."""
    with tempfile.TemporaryDirectory(prefix="hanse-scale-") as folder:
        served = alone(serve, Path(folder))
    *adding, stepping = served["at_most"]
    print(f"at most, until the step: {max(adding):.2f} adapters beyond the model (gate 2.25)")
    print(f"in the step, and while the round is saved: {stepping:.2f}")
    values = json.loads(results("scale").read_text())
    values["server"] = {**served, "command": "python benchmarks/scale.py --server"}
    results("scale").write_text(json.dumps(values, indent=2) + "\n")


def main() -> None:
    """Measure, print the gates, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--server", action="store_true", help="only the server half; a minute")
    parser.add_argument("--short", action="store_true", help="1,000 clients, 6 rounds; a minute")
    chosen = parser.parse_args()
    if chosen.server:
        keep_served()
        return
    clients, rounds, repeats = (1000, 6, 1) if chosen.short else (10_000, 20, chosen.repeats)
    sizes = [size for size in (100, 1000, 10_000) if size <= clients]
    with tempfile.TemporaryDirectory(prefix="hanse-scale-") as folder:
        home = Path(folder)
        prepare(home)
        os.environ["HANSE_CACHE"] = str(home / "cache")
        runs = [alone(run, home, clients, rounds, size) for size in CLIENTS_PER_PASS]
        served = alone(serve, home)
        seconds = startups(home, sizes, repeats)
    held = max(served["held_while_clients_work"])
    for found in runs:
        print(f"clients per pass {found['clients_per_pass']}:")
        print(f"resident memory, round {rounds} ÷ round 2: {found['growth']:.3f} (gate 1.05)")
        each = 1000 * found["seconds_a_client_beyond_training"]
        print(f"a client beyond its training: {each:.2f} ms (gate 5)")
    print(f"the server, while clients work: {held:.2f} adapters beyond the model (gate 2)")
    print(f"at most, until the step: {max(served['at_most'][:-1]):.2f} (gate 2.25)")
    for name, by_size in seconds.items():
        shown = ", ".join(f"{n:,}: {statistics.median(s):.2f} s" for n, s in by_size.items())
        print(f"start-up {name}, by clients: {shown}")
    values = {"clients": clients, "rounds": rounds, "rows": ROWS, "runs": runs, "server": served}
    print(keep("scale", {**values, "startup_seconds": seconds}))


if __name__ == "__main__":
    main()
