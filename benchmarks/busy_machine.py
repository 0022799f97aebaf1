"""Training steps on a quiet and on a busy machine, by how torch's threads wait for each other.

Each way of waiting is a set of OpenMP's environment variables, in a process of its own that stays
for the whole measurement; the processes take turns. A step is one of SmolLM2-135M with LoRA on
every linear layer, batch 4 × 40. Beside it run: nothing; two and four programs of one thread that
never wait; another process that trains in the same way. Seconds and CPU seconds of a step are
medians, and ratios to the default medians of pairs. Writes benchmarks/results/busy_machine.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from measured import keep, ratio
from overhead import JOB, QUICKSTART

from hanse.data.example import IGNORED, Example
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.batches import collate

ROWS, TOKENS, LABELS = 4, 40, 10
LEAST = 2  # turns
DEFAULT = "default"
WAYS: dict[str, dict[str, str]] = {
    DEFAULT: {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (1000, 3000, 10000)},
    "OMP_PROC_BIND=true": {"OMP_PROC_BIND": "true"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
BESIDE = {"on a quiet machine": 0, "beside 2 programs": 2, "beside 4 programs": 4}
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""
Sample = tuple[float, float]  # seconds and CPU seconds of a step


@dataclass
class Trainer:
    """A process that trains when it is asked to."""

    process: subprocess.Popen[str]

    def begin(self) -> None:
        """Let it train one step."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()

    def sample(self) -> Sample:
        """The step that it was asked for, or its first one, when it is done."""
        assert self.process.stdout is not None
        seconds, cpu = json.loads(self.process.stdout.readline())
        return seconds, cpu


@contextmanager
def trainer(variables: Mapping[str, str], bf16: str) -> Iterator[Trainer]:
    """A process with these variables of OpenMP, and none of this process's."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--train", "--bf16", bf16]
    pipe, environment = subprocess.PIPE, {**kept, **variables}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield Trainer(process)


def train(bf16: str) -> None:
    """Train a step, and another one for each line of the input, and print what each took."""
    learner = simulate(load(QUICKSTART, [*JOB, f"model.bf16={bf16}"])).learner
    ids = tuple(range(100, 100 + TOKENS))
    labels = (IGNORED,) * (TOKENS - LABELS) + ids[-LABELS:]
    batch = collate([Example(ids, labels)] * ROWS, learner.backbone.device)
    learner.backbone.activate(learner.adapter)
    optimizer = torch.optim.AdamW(list(learner.parameters().values()))

    def step() -> Sample:
        start, cpu = time.perf_counter(), time.process_time()
        Sft().loss(learner, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start, time.process_time() - cpu

    print(json.dumps(step()), flush=True)  # libraries initialize
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


@contextmanager
def spinning(programs: int) -> Iterator[None]:
    """So many programs of one thread that never wait."""
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(programs)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(trainers: Mapping[str, list[Trainer]], seconds: float) -> dict[str, list[Sample]]:
    """Steps of each way, taking turns for so many seconds, and at least twice.

    The trainers of a way work at the same time.
    """
    samples: dict[str, list[Sample]] = {way: [] for way in trainers}
    end, turns = time.perf_counter() + seconds, 0
    while turns < LEAST or time.perf_counter() < end:
        turns += 1
        for way, together in trainers.items():
            for one in together:
                one.begin()
            for one in together:
                samples[way].append(one.sample())
    return samples


def summary(samples: Mapping[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """Medians of each way, and how many times as fast as the default it is."""
    return {
        way: {
            "seconds": statistics.median(seconds for seconds, _ in steps),
            "cpu_seconds": statistics.median(cpu for _, cpu in steps),
            "speedup": ratio([s for s, _ in samples[DEFAULT]], [s for s, _ in steps]),
        }
        for way, steps in samples.items()
    }


def main() -> None:
    """Measure beside each kind of work, print the medians, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="beside each kind of work")
    parser.add_argument("--bf16", default="true", help="true or false")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.train:
        train(chosen.bf16)
        return
    beside: dict[str, Any] = {}
    with ExitStack() as stack:
        trainers: dict[str, list[Trainer]] = {}
        for way, variables in WAYS.items():  # one after another: they would slow each other down
            pair = [stack.enter_context(trainer(variables, chosen.bf16)) for _ in range(2)]
            for one in pair:
                one.sample()
            trainers[way] = pair
        alone = {way: pair[:1] for way, pair in trainers.items()}
        for name, programs in BESIDE.items():
            with spinning(programs):
                beside[name] = measure(alone, chosen.seconds)
        beside["beside another run"] = measure(trainers, chosen.seconds)
    medians = {name: summary(samples) for name, samples in beside.items()}
    print(json.dumps(medians, indent=2))
    about = {"bf16": chosen.bf16 == "true", "seconds": chosen.seconds}
    print(keep("busy_machine", {**about, "medians": medians, "samples": beside}))


if __name__ == "__main__":
    main()
