"""What a step costs a silo: the whole SmolLM2 against its emulators, in seconds and in memory.

All train LoRA in the two bottom and two top layers, in float32; the whole model with LoRA in all
layers stands beside them. Seconds are medians over steps that take turns, memory the peak of a
process of its own while it trains, less what it had before it read the model. From the whole model
and the layer drops follows, by least squares, what a layer costs, and from that the ratio for
OPT-1.3B's layers as the paper cuts them (24 to 12).
Writes benchmarks/results/emulator_costs.json.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import offsite
import torch
from measured import keep
from overhead import JOB
from precision import step_seconds
from scale import forget, peak, resident

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.models.emulators import record

FOLDER = offsite.RUNS.with_name("benchmark-emulator-costs")
WHOLE, WIDE = "whole", "whole, all layers"
MAKES: Mapping[str, dict[str, dict[str, Any]]] = MappingProxyType(
    {
        "drop 0.2": {"layer_drop": {"drop": 0.2}},
        "drop 0.5": {"layer_drop": {"drop": 0.5}},
        "drop 0.8": {"layer_drop": {"drop": 0.8}},
        "int8": {"quantized": {"bits": "int8"}},
        "nf4": {"quantized": {"bits": "nf4"}},
        "low rank 0.8": {"low_rank": {"energy": 0.8}},
    }
)
NAMES = (WHOLE, WIDE, *MAKES)
DROPS = [name for name in MAKES if name.startswith("drop")]
PAPER = (24, 12)  # layers of OPT-1.3B, and of its emulator with eight of 20 middle layers
BATCH, TOKENS = 8, 64


def folder(name: str) -> Path:
    """The folder of an emulator, which is made if it is not there."""
    runs = offsite.Runs(FOLDER)
    offsite.make_emulators({name: (MAKES[name], False)}, runs)
    return runs.emulator(name)


def settings(name: str) -> list[str]:
    """What is set in the experiment for a model: itself, and the layers of its adapter."""
    ends, depth = offsite.ENDS, offsite.DEPTH
    model, layers = offsite.MODEL, [*range(ends), *range(depth - ends, depth)]
    if name == WIDE:
        layers = [*range(depth)]
    elif name in MAKES:
        entry = record.read(folder(name))
        assert entry is not None  # it was made just now
        model, layers = str(folder(name)), entry.adapter_layers
    chosen = f"adapter.lora.layers_to_transform={layers}".replace(" ", "")
    # What is chosen by measuring may differ, and packed weights are kept twice beside the weights.
    alike = "models={}", "model.bf16=false", "model.products=torch"
    return [*JOB, *alike, f"model.model_name_or_path={model}", chosen]


def learner(name: str) -> AdaptedModel:
    """The first silo's learner with this model."""
    clients = simulate(load(offsite.EXPERIMENT, settings(name))).clients
    return next(iter(clients.values())).learner


def batch(own: AdaptedModel) -> Any:
    """The first rows of the silo that are long enough, cut to one length."""
    rows = [row for row in own.examples("train") if len(row.ids) >= TOKENS // 2][:BATCH]
    return own.batch(rows)


def seconds(names: Sequence[str], steps: int) -> dict[str, list[float]]:
    """Seconds of each step of each model, in turns; the first step of each does not count."""
    learners = {name: learner(name) for name in names}
    batches = {name: batch(own) for name, own in learners.items()}
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(1 + steps):
        for name, own in learners.items():
            found[name].append(step_seconds(own, batches[name]))
    return {name: values[1:] for name, values in found.items()}


def _train(name: str, steps: int, answers: Connection) -> None:
    """Train in a process of its own; send the bytes before, after loading, and at the peak."""
    torch.set_num_threads(1)
    before = resident()
    own = learner(name)
    loaded = resident() - before
    forget()
    replace(own, training=replace(own.training, max_steps=steps)).fit()
    answers.send((loaded, peak() - before))


def memory(name: str, steps: int) -> dict[str, int]:
    """Bytes of a process with this model: when it is loaded, and at the peak of training."""
    context = get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(name, steps, theirs))
    process.start()
    theirs.close()
    loaded, peak = answers.recv()
    process.join()
    return {"loaded_bytes": loaded, "peak_bytes": peak}


def by_layer(layers: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """The straight line through what models of so many layers cost, and the ratio at PAPER."""
    slope, constant = statistics.linear_regression(layers, values)
    whole, emulator = (constant + slope * count for count in PAPER)
    return {"layer": slope, "beside": constant, "ratio_24_to_12": whole / emulator}


def main() -> None:
    """Measure all models, print a line for each, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="two models and few steps")
    short = parser.parse_args().short
    names = (WHOLE, "drop 0.5") if short else NAMES
    steps = 2 if short else 9
    counts = {name: offsite.DEPTH for name in (WHOLE, WIDE)}
    for name in (name for name in names if name in MAKES):
        entry = record.read(folder(name))
        counts[name] = len(entry.layers) if entry else 0
    found: dict[str, dict[str, Any]] = {name: memory(name, 3) for name in names}
    for name, values in seconds(names, steps).items():
        found[name] |= {"layers": counts[name], "step_seconds": values}
    for own in found.values():
        pairs = zip(found[WHOLE]["step_seconds"], own["step_seconds"], strict=True)
        own["faster"] = statistics.median(one / other for one, other in pairs)
        own["smaller"] = found[WHOLE]["peak_bytes"] / own["peak_bytes"]
    line = [name for name in (WHOLE, *DROPS) if name in found]
    layers = [found[name]["layers"] for name in line]
    content = {
        "batch": BATCH,
        "models": found,
        "seconds": by_layer(layers, [statistics.median(found[n]["step_seconds"]) for n in line]),
        "peak_bytes": by_layer(layers, [found[name]["peak_bytes"] for name in line]),
    }
    for name, own in found.items():
        print(f"{name}: {own['faster']:.2f} × as fast, 1/{own['smaller']:.2f} of the memory")
    print(keep("emulator_costs", content))


if __name__ == "__main__":
    main()
