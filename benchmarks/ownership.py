"""Owners' marks in SmolLM2: detection after secure sums, what they cost, and what they survive.

Four silos of the quickstart mark the model, each with a key of its own, and their updates are added
in secret. Each seed draws other keys, another partition and another adapter, and is run without
marks, too. Rates are shares of right bits, over all keys of all seeds, with Student's interval over
the keys and the lowest one. Afterwards the adapter is pruned, rounded, and trained further; one run
has noise of differential privacy. The bound of the theorem is tried with more bits than one layer's
A carries. A run that was stopped is gone on with. Writes benchmarks/results/ownership.json.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from measured import ROOT, keep
from spread import over_seeds
from torch import Tensor

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.chance import LARGEST_P, detection_bound, p_value
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import place_of
from hanse.audit.ownership.verification import detected
from hanse.evaluation.metrics.confidence import paired
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners.injection import adapter_files
from hanse.simulation import run as simulation

SHORT = "--short" in sys.argv
SEEDS = (1,) if SHORT else (1, 2, 3)
SILOS = tuple(f"silo-{n}" for n in (1, 2, 3, 4))
QUICKSTART = ROOT / "experiments" / "quickstart.yaml"
FOLDER = ROOT / "runs" / ("benchmark-ownership-short" if SHORT else "benchmark-ownership")
COMMON = ("aggregator=secagg", "data.client_test=0", "data.test=1000", *(["rounds=2"] * SHORT))
NOISE = "privacy={distributed_gaussian: {epsilon: 50, clip: 1.0}}"
FURTHER = ("data.pooled=true", "rounds=1", "train.num_train_epochs=null", "train.max_steps=100")
ONE_LAYER = "*.layers.29.self_attn.q_proj.lora_A.weight"  # 8 × 576 numbers
STRANGERS = 100 if SHORT else 1_000  # keys whose directions are drawn, too
DRAWN_BITS = 100_000  # keys whose bits alone are drawn: directions do not change their chances
Tensors = dict[str, Tensor]


def keys(seed: int, **choices: Any) -> dict[str, Path]:
    """The file of each silo's key; a run that is gone on with finds the same keys."""
    name = "-".join(map(str, (seed, *choices.values()))).replace("*", "")
    files = {silo: FOLDER / "keys" / name / f"{silo}.key" for silo in SILOS}
    for silo, file in files.items():
        if not file.exists():
            owners.write(file, owners.draw(silo, **choices))
    return files


def finished(name: str, seed: int, files: Mapping[str, Path], *words: str) -> Path:
    """The folder of a run in which these keys mark, run or resumed as needed."""
    folder = FOLDER / f"{name}-{seed}"
    marks = [f"clients.{silo}.ownership={{key: {file}}}" for silo, file in files.items()]
    settings = [f"seed={seed}", f"output_dir={folder}", *COMMON, *words, *marks]
    if not folder.exists():
        return simulation.run(load(QUICKSTART, settings))
    return folder if (folder / "report.html").exists() else simulation.resume(folder)


def tensors(folder: Path) -> Tensors:
    """The tensors of a run's adapter."""
    return adapter_files.read(folder / "adapter")[1]


def pruned(share: float) -> Callable[[Tensors], Tensors]:
    """Each tensor without the smallest of its numbers."""

    def prune(own: Tensor) -> Tensor:
        dropped = int(share * own.numel())
        smallest = own.abs().flatten().kthvalue(dropped).values
        return own.where(own.abs() > smallest, torch.zeros_like(own))

    return lambda whole: {name: prune(own) for name, own in whole.items()}


def rounded(whole: Tensors) -> Tensors:
    """Each tensor in 255 levels of one scale (int8)."""
    scales = {name: own.abs().max() / 127 for name, own in whole.items()}
    return {name: (own / scales[name]).round() * scales[name] for name, own in whole.items()}


def rate_row(rates: Sequence[float]) -> dict[str, Any]:
    """Rates over keys: their mean with its interval, the lowest one, and how many prove it."""
    bits, interval = 64, over_seeds(rates)
    proved = sum(p_value(round(rate * bits), bits) <= LARGEST_P for rate in rates)
    return {
        "keys": len(rates),
        "mean": fmean(rates),
        "interval": [min(bound, 1.0) for bound in interval[1:]] if interval else None,
        "lowest": min(rates),
        "proved": proved,
    }


def rates(whole: Tensors, files: Mapping[str, Path]) -> list[float]:
    """The rate of each silo's key."""
    return [detected(owners.read(file), whole).rate for file in files.values()]


def survival() -> dict[str, Any]:
    """Rates after the run, and after what is then done to the adapter."""
    changes = {"as trained": dict, "pruned 5 %": pruned(0.05), "pruned 20 %": pruned(0.2)}
    changes |= {"int8": rounded}
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        files = keys(seed)
        marked = finished("marked", seed, files)
        whole = tensors(marked)
        for name, change in changes.items():
            found.setdefault(name, []).extend(rates(change(whole), files))
        source = f"adapter.from={marked}"
        further = finished("further", seed, {}, "aggregator=mean", source, *FURTHER)
        found.setdefault("100 further steps", []).extend(rates(tensors(further), files))
        noisy = finished("noise", seed, files, NOISE)
        found.setdefault("noise of ε = 50", []).extend(rates(tensors(noisy), files))
        plain = tensors(finished("plain", seed, {}))
        found.setdefault("never marked", []).extend(rates(plain, files))
    return {name: rate_row(values) for name, values in found.items()}


def accuracy(seed: int) -> dict[str, Any]:
    """Accuracy with and without marks on the same test rows, and the paired difference."""
    scored = []
    for name, files in (("plain", {}), ("marked", keys(seed))):
        folder = finished(name, seed, files)
        last = run_folder.read_rounds(folder)[-1].round
        scored.append(run_folder.read_evaluation(folder, "test-classification", last))
    ahead = paired(scored[1].items, scored[0].items)
    assert ahead is not None  # there are two rows or more
    return {
        "seed": seed,
        "plain": scored[0].metrics["accuracy"],
        "marked": scored[1].metrics["accuracy"],
        "ahead": [ahead.value, ahead.low, ahead.high],
    }


def above_capacity(bits: int) -> dict[str, Any]:
    """Rates of four keys in one layer's A, and the theorem's bound for so many bits."""
    files = keys(1, bits=bits, place="weights", tensors=ONE_LAYER)
    whole = tensors(finished(f"bits-{bits}", 1, files))
    channels = place_of(owners.read(files[SILOS[0]]), whole).channels
    total = bits * len(files)
    bound = detection_bound(total, channels)
    return {"bits": total, "channels": channels, "bound": bound, "rates": rates(whole, files)}


def strangers() -> dict[str, Any]:
    """Keys that were never used, on a marked adapter: none of them may prove anything."""
    whole = tensors(finished("marked", SEEDS[0], keys(SEEDS[0])))
    drawn = [OwnershipKey("stranger", f"{n:064x}") for n in range(DRAWN_BITS)]
    values = [detected(key, whole).rate for key in drawn[:STRANGERS]]
    measured, _ = place_of(drawn[0], whole).measured(whole)
    signs = measured.sign().int().tolist()
    equal = [sum(a == b for a, b in zip(key.signs(), signs, strict=True)) for key in drawn]
    verified = sum(p_value(right, 64) <= LARGEST_P for right in equal)
    return {
        "whole keys": rate_row(values),
        "keys": len(drawn),
        "verified": verified,
        "bound_95": 3 / len(drawn) if not verified else None,
        "most_right_bits": max(equal),
    }


def main() -> None:
    """Run all parts, and keep what is there after each."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    content: dict[str, Any] = {"short": SHORT, "bits": 64, "silos": len(SILOS)}
    content["survival"] = survival()
    keep("ownership", content)
    content["accuracy"] = [accuracy(seed) for seed in SEEDS]
    keep("ownership", content)
    content["capacity"] = [
        above_capacity(bits) for bits in (512, 1024, 2048, 4096)[: 1 if SHORT else 4]
    ]
    keep("ownership", content)
    content["strangers"] = strangers()
    print(keep("ownership", content))


if __name__ == "__main__":
    main()
