"""What the precision of SmolLM2-135M's weights costs and saves, on the demo's rows.

The same steps with weights in float32 (products by torch, then by oneDNN), bfloat16 (attention by
torch's kernel, then by plain products, then with packed weights), int8 and nf4, and with
activations computed again; the last three in the mode that is chosen here. Bytes of the weights and
of what is kept for the backward pass, seconds of a step (medians over repeats that alternate), and
the loss on held-out rows before and after training.
Writes benchmarks/results/precision.json.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from measured import keep
from overhead import JOB, QUICKSTART
from torch import Tensor

from hanse.data.example import Example
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.loading import load as experiment_of
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.load import load
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings

BATCH = 8


def variants(chosen: ComputeMode) -> dict[str, tuple[ComputeMode, dict[str, Any]]]:
    """What is compared: how the model computes, and its settings."""
    return {
        "float32": (ComputeMode(bf16=False), {}),
        "bfloat16": (ComputeMode(bf16=True), {}),
        "bfloat16, plain attention": (ComputeMode(bf16=True, plain_attention=True), {}),
        "float32, oneDNN's products": (ComputeMode(bf16=False, products="onednn"), {}),
        "bfloat16, plain attention, packed weights": (ComputeMode(True, True, "packed"), {}),
        "int8": (chosen, {"quantization": "int8"}),
        "nf4": (chosen, {"quantization": "nf4"}),
        "gradient checkpointing": (chosen, {"gradient_checkpointing": True}),
    }


def size(weight: Any) -> int:
    """The bytes of a weight; quantized ones consist of several tensors."""
    if hasattr(weight, "quant_state"):
        state = weight.quant_state.as_dict(packed=True).values()
        return int(weight.nbytes + sum(part.nbytes for part in state))
    if hasattr(weight, "qdata"):
        parts = (getattr(weight, name) for name in weight.__tensor_flatten__()[0])
        return sum(part.nbytes for part in parts if part is not None)
    return int(weight.nbytes)


def kept(learner: AdaptedModel, batch: Any) -> int:
    """The bytes that a forward pass keeps for the backward pass beside the weights."""
    model = learner.backbone.model
    own = {parameter.data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = learner.objective.loss(learner, batch)
    total = sum(bytes_ for place, bytes_ in sizes.items() if place not in own)
    del found  # only now may what it keeps be used again
    return total


def loss(learner: AdaptedModel, rows: Sequence[Example]) -> float:
    """The mean loss on some rows."""
    total, items = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), 2 * BATCH):
            batch = learner.batch(rows[start : start + 2 * BATCH])
            total += float(learner.objective.loss(learner, batch)) * batch.items
            items += batch.items
    return total / items


def step_seconds(learner: AdaptedModel, batch: Any) -> float:
    """A step's forward and backward pass."""
    start = time.perf_counter()
    live = list(learner.parameters().values())
    torch.autograd.grad(learner.objective.loss(learner, batch), live)
    return time.perf_counter() - start


def main() -> None:
    """Measure all variants in turn, print a line for each, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few rows and steps")
    short = parser.parse_args().short
    repeats, steps, held = (2, 3, 32) if short else (7, 40, 400)
    experiment = experiment_of(QUICKSTART, JOB)
    silos = simulate(experiment).clients.values()
    first = max(silos, key=lambda silo: len(silo.examples["train"])).learner
    rows = list(first.examples("train"))
    lora, training = adapter_settings(experiment), replace(first.training, max_steps=steps)
    learners: dict[str, AdaptedModel] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, (chosen, own) in variants(first.backbone.compute_mode).items():
        base = load(BaseModelSettings(**own), chosen)
        bytes_ = sum(map(size, base.model.parameters()))
        learner = replace(
            first,
            backbone=base,
            adapter=base.attach(lora, 0),
            splits={"train": rows[held:]},
            training=training,
        )
        learners[name] = learner
        found[name] = {"weights_bytes": bytes_, "loss_before": loss(learner, rows[:held])}
    batch = first.batch(rows[held : held + BATCH])
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(1 + repeats):
        for name, learner in learners.items():
            seconds[name].append(step_seconds(learner, batch))
    for name, learner in learners.items():
        if name not in ("int8", "nf4"):
            found[name]["kept_bytes"] = kept(learner, batch)
        learner.fit()
        found[name] |= {
            "loss_after": loss(learner, rows[:held]),
            "step_seconds": seconds[name][1:],  # the first time, libraries prepare themselves
            "speedup": statistics.median(
                one / other
                for one, other in zip(seconds["float32"][1:], seconds[name][1:], strict=True)
            ),
        }
        shown = {k: v for k, v in found[name].items() if k != "step_seconds"}
        print(name, *(f"{k} {v:,.3f}" for k, v in shown.items()), sep="  ")
    made = {
        "chosen": asdict(first.backbone.compute_mode),
        "rows": held,
        "steps": steps,
        "batch": BATCH,
    }
    print(keep("precision", {**made, "variants": found}))


if __name__ == "__main__":
    main()
