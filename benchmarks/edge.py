"""The model of cost of a device, beside training steps that this machine really takes.

A grid of batch sizes, lengths and depths of two families with random weights. The model is fitted
to two cells of one family and predicts the other cells, which it has not seen. Each cell is kept in
runs/benchmarks as soon as it is measured, so that the same command goes on after a stop; remove
that file to measure anew, on a quiet machine. Writes benchmarks/results/edge.json. Takes about ten
minutes on two cores; `--short`: one.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from measured import ROOT, keep
from transformers import AutoConfig

from hanse.learners import flops
from hanse.learners.models.random_models import build
from hanse.learners.models.random_models.shapes import SHAPES
from hanse.learners.step_cost import PassCost, StepCost
from hanse.observability import processor
from hanse.planning.devices.profile import bandwidth
from hanse.planning.edge_study.measure import measured_step
from hanse.simulation.device_cost import Machine, Measured, fitted

SHORT = "--short" in sys.argv
WIDTH = 384
DEPTHS = (2, 4) if SHORT else (2, 4, 8, 12)
BATCHES = (1, 4) if SHORT else (1, 4, 16)
LENGTHS = (32, 64) if SHORT else (32, 128, 256)
FITTED = [("llama", 4, BATCHES[0], LENGTHS[0]), ("llama", 4, BATCHES[-1], LENGTHS[1])]
TARGET = 0.25  # mean error that the model of cost must stay below

Cell = tuple[str, int, int, int]  # family, depth, rows of a batch, tokens of a row


def main() -> None:
    """Measure the grid, fit the model to two of its cells, and predict the others."""
    before = processor.core_use()
    rows = {tuple(row["cell"]): row for row in _measured()}
    device = torch.device("cpu")
    peak, rate = flops.peak(device, torch.float32), bandwidth(device)
    passes = [own for cell in FITTED for own in _passes(rows[cell])]
    mfu, overhead = fitted(passes, peak)
    machine = Machine(peak, rate, mfu, overhead)
    cells = [{**row, **_predicted(machine, row)} for row in rows.values()]
    seen = [list(cell) for cell in FITTED]
    held_out = [row for row in cells if row["cell"] not in seen]
    errors = {
        family: fmean(row["error"] for row in held_out if row["cell"][0] == family)
        for family in sorted({row["cell"][0] for row in held_out})
    }
    error = fmean(row["error"] for row in held_out)
    values: dict[str, Any] = {
        "peak": peak,
        "bandwidth": rate,
        "mfu": mfu,
        "operator_us": 1e6 * overhead,
    }
    values |= {"busy_cores": processor.other_work(before), "fitted_to": seen, "target": TARGET}
    print(f"mean error {100 * error:.1f} % of {len(held_out)} cells, target {100 * TARGET:.0f} %")
    print(keep("edge", {**values, "error": error, "errors": errors, "cells": cells}))


def _measured() -> Iterator[dict[str, Any]]:
    """The rows of all cells; those that an earlier call measured are read."""
    file = ROOT / "runs" / "benchmarks" / f"edge-cells{'-short' * SHORT}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = {tuple(row["cell"]): row for row in map(json.loads, lines)}
    for family in ("llama", "t5"):
        for depth in DEPTHS:
            model = None
            for cell in ((family, depth, b, n) for b in BATCHES for n in LENGTHS):
                if cell not in kept:
                    model = model or _model(family, depth)
                    kept[cell] = _row(model, cell)
                    with file.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(kept[cell]) + "\n")
                yield kept[cell]


def _model(family: str, depth: int) -> build.RandomModel:
    shape = dict(SHAPES[f"{family}-tiny"])
    sizes: dict[str, Any] = (
        {"hidden_size": WIDTH, "intermediate_size": 1024, "num_hidden_layers": depth}
        if family == "llama"
        else {"d_model": WIDTH, "d_ff": 1024, "num_layers": depth, "num_decoder_layers": depth}
    )
    values = {**shape, **sizes, "vocab_size": 4096}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    return build.build(f"{family}-{depth}", config, 8, torch.device("cpu"))


def _row(model: build.RandomModel, cell: Cell) -> dict[str, Any]:
    """Count and time one cell."""
    _, _, rows, length = cell
    step = measured_step(model, rows, length)
    print(*cell, f"{step.seconds.total:.4f} s", flush=True)
    return {
        "cell": list(cell),
        "cost": dataclasses.asdict(step.cost),
        "seconds": dataclasses.asdict(step.seconds),
    }


def _cost(row: dict[str, Any]) -> StepCost:
    cost = row["cost"]
    forward, backward, optimizer = (
        PassCost(**cost[name]) for name in ("forward", "backward", "optimizer")
    )
    return StepCost(forward, backward, optimizer, cost["tokens"])


def _passes(row: dict[str, Any]) -> Iterator[Measured]:
    cost = _cost(row)
    yield Measured(cost.forward, row["seconds"]["forward"])
    yield Measured(cost.backward, row["seconds"]["backward"])


def _predicted(machine: Machine, row: dict[str, Any]) -> dict[str, Any]:
    """The predicted seconds of a row's step, and their relative error."""
    step, measured = machine.step(_cost(row)), sum(row["seconds"].values())
    return {"predicted": step._asdict(), "error": abs(step.total / measured - 1)}


if __name__ == "__main__":
    main()
