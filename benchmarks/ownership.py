"""Owners' marks in SmolLM2: detection after secure sums, what they cost, and what they survive.

Four silos of the quickstart mark the model, each with a key of its own, and their updates are added
in secret. Each seed draws other keys, another partition and another adapter, and is run without
marks, too. Rates are shares of right bits, over all keys of all seeds, with Student's interval over
the keys. Other runs have trigger prompts, the noise of differential privacy, and a free rider,
which sends noise as long as its update and lays no mark; a marked adapter is pruned, rounded, and
trained further without keys. The bound of the theorem is tried with more bits than one layer's A
carries. That and noise are tried by the first seed alone. Whatever is finished stands in
benchmarks/results/ownership.json and is not done again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import protocol
import rows
import spread
import torch
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import Kept, Row, fingerprint
from torch import Tensor

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.chance import LARGEST_P, detection_bound, p_value
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import place_of
from hanse.audit.ownership.verification import Detection, detected
from hanse.learners.injection import adapter_files
from hanse.serving import trigger_answers

QUICKSTART = ROOT / "experiments" / "quickstart.yaml"
RUNS = ROOT / "runs" / "benchmark-ownership"
SILOS = tuple(f"silo-{n}" for n in (1, 2, 3, 4))
RIDER = SILOS[-1]
COMMON = (
    *("aggregator=secagg", "data.client_test=0", "data.test=1000"),
    *("evaluation.test=final", "evaluation.validate_every=0"),
)
UNSCORED = "evaluation.test=false"
SHORT = ("rounds=2", "train.num_train_epochs=null", "train.max_steps=2", "data.test=40")
ONE_LAYER = "*.layers.29.self_attn.q_proj.lora_A.weight"  # 8 × 576 numbers
STRANGERS = 1_000  # keys whose directions are drawn, too
DRAWN_BITS = 100_000  # keys whose bits alone are drawn: directions do not change their chances
PLAIN, MARKED, FURTHER, RIDDEN = "unmarked", "marked", "100 further steps", "a free rider"
PRUNED = ("pruned 5 %", "pruned 20 %")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Way:
    """One row: who marks, with which kind of key, and the settings of its runs.

    of: the row whose keys are looked for, where this one draws none. once: by the first seed alone.
    share: of trigger rows in a batch.
    """

    marking: tuple[str, ...] = SILOS
    choices: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    of: str | None = None
    once: bool = False
    share: float = 0.1

    @property
    def scored(self) -> bool:
        """Whether test reviews are scored."""
        return UNSCORED not in self.words


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        PLAIN: Way((), of=MARKED),
        MARKED: Way(),
        "marked, 40 triggers": Way(choices={"triggers": 40}),
        "marked, 40 triggers in half of a batch": Way(
            choices={"triggers": 40}, share=0.5, once=True
        ),
        "noise, ε = 8": Way(
            words=("privacy={distributed_gaussian: {epsilon: 8, clip: 1.0}}",), once=True
        ),
        RIDDEN: Way(
            SILOS[:-1],
            words=(
                "aggregator=mean",
                f"attack={{gaussian: {{attackers: [{RIDER}], factor: 1}}}}",
            ),
        ),
        FURTHER: Way(
            (),
            words=(
                *("aggregator=mean", "data.pooled=true", "rounds=1"),
                *("train.num_train_epochs=null", "train.max_steps=100"),
            ),
            of=MARKED,
        ),
        **{
            f"{4 * bits:,} bits in one layer": Way(
                choices={"bits": bits, "place": "weights", "tensors": ONE_LAYER},
                words=(UNSCORED,),
                once=True,
            )
            for bits in (512, 1024, 2048, 4096)
        },
    }
)
PARTS = {
    "marks": [name for name in WAYS if "layer" not in name],
    "capacity": [name for name in WAYS if "layer" in name],
}


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()
    file: Path = QUICKSTART

    def keys(self, name: str, seed: int) -> dict[str, Path]:
        """The file of each silo's key; a run that is gone on with finds the same keys."""
        way = WAYS[name]
        if way.of is not None:
            return self.keys(way.of, seed)
        folder = self.home / "keys" / f"{_folder(name)}-{seed}"
        files = {silo: folder / f"{silo}.key" for silo in SILOS}
        for silo, file in files.items():
            if not file.exists():
                owners.write(file, owners.draw(silo, **way.choices))
        return files

    def task(self, name: str, seed: int) -> Task:
        """One run of a row."""
        way, files = WAYS[name], self.keys(name, seed)
        own = "" if way.share == Way.share else f", share: {way.share}"
        marks = [f"clients.{silo}.ownership={{key: {files[silo]}{own}}}" for silo in way.marking]
        source = [f"adapter.from={self.task(MARKED, seed).folder}"] if name == FURTHER else []
        settings = f"seed={seed}", *COMMON, *self.words, *way.words, *source, *marks
        return Task(self.home / f"{_folder(name)}-{seed}", self.file, settings)


def _folder(name: str) -> str:
    return protocol.file_name(name).replace("ε-=-", "epsilon-").replace(",", "")


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


CHANGES: Mapping[str, Callable[[Tensors], Tensors]] = MappingProxyType(
    {PRUNED[0]: pruned(0.05), PRUNED[1]: pruned(0.2), "int8": rounded}
)


def found(detections: Sequence[Detection]) -> Row:
    """Detections of several keys: the mean rate with its interval, the lowest, how many prove."""
    rates = [one.rate for one in detections]
    interval = spread.over_seeds(rates)
    return {
        "keys": len(rates),
        "rate": fmean(rates),
        "over_keys": [min(bound, 1.0) for bound in interval[1:]] if interval else None,
        "lowest": min(rates),
        "proved": sum(one.proves for one in detections),
    }


def line(name: str, tasks: Sequence[Task], runs: Runs, seeds: Sequence[int]) -> Row:
    """All seeds of one row: detection of the keys, and accuracy on test reviews if it is scored."""
    way, scored = WAYS[name], []
    by_key: list[tuple[str, OwnershipKey, Tensors, Path]] = []
    for task, seed in zip(tasks, _seeds(name, seeds), strict=True):
        if way.scored:
            scored.append(protocol.items(task))
        whole, files = tensors(task.folder), runs.keys(name, seed)
        by_key += [(silo, owners.read(f), whole, task.folder) for silo, f in files.items()]
    laid = [one for one in by_key if one[0] in way.marking or not way.marking]
    riding = [one for one in by_key if one not in laid]
    row = {
        "marking": len(way.marking),
        "bits": laid[0][1].bits,
        **found([detected(key, whole) for _, key, whole, _ in laid]),
    }
    if scored:
        row |= spread.standing(scored)
        row["runs"] = [{"items": spread.packed(items)} for items in scored]
    if riding:
        row["rider"] = found([detected(key, whole) for _, key, whole, _ in riding])
    if way.choices.get("triggers"):
        row["prompts"] = found([trigger_answers.detected(at, key) for _, key, _, at in laid])
    if name == MARKED:
        row["survives"] = {
            change: found([detected(key, alter(whole)) for _, key, whole, _ in laid])
            for change, alter in CHANGES.items()
        }
    if "tensors" in way.choices:
        total = len(SILOS) * laid[0][1].bits
        row["channels"] = place_of(laid[0][1], laid[0][2]).channels
        row["bound"] = detection_bound(total, row["channels"])
    return row


def compared(lines: Mapping[str, Row]) -> None:
    """Note in each row how far its accuracy is ahead of the run without marks."""
    plain = lines.get(PLAIN, {})
    for name, row in lines.items():
        if name != PLAIN and "runs" in row and "runs" in plain:
            row |= spread.ahead_of(row["runs"], plain["runs"][: len(row["runs"])])


def strangers(whole: Tensors, whole_keys: int = STRANGERS, drawn_bits: int = DRAWN_BITS) -> Row:
    """Keys that were never used, on a marked adapter: none of them may prove anything."""
    drawn = [OwnershipKey("stranger", f"{n:064x}") for n in range(drawn_bits)]
    values = [detected(key, whole) for key in drawn[:whole_keys]]
    measured, _ = place_of(drawn[0], whole).measured(whole)
    signs = measured.sign().int().tolist()
    equal = [sum(a == b for a, b in zip(key.signs(), signs, strict=True)) for key in drawn]
    verified = sum(p_value(right, drawn[0].bits) <= LARGEST_P for right in equal)
    return {
        "whole_keys": found(values),
        "keys": len(drawn),
        "verified": verified,
        "bound_95": 3 / len(drawn) if not verified else None,
        "most_right_bits": max(equal),
    }


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    workers: int = WORKERS,
    strange: tuple[int, int] = (STRANGERS, DRAWN_BITS),
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("ownership", {"seeds": list(seeds), "silos": len(SILOS)})
    with Workers(workers) as some:
        for group in ([n for n in names if n != FURTHER], [n for n in names if n == FURTHER]):
            plan = {name: [runs.task(name, seed) for seed in _seeds(name, seeds)] for name in group}
            head = partial(line, runs=runs, seeds=seeds)
            rows.finish(plan, kept, some, head, compared, WAYS)
    first = runs.task(MARKED, seeds[0])
    if first.finished and not kept.row(fingerprint(first), "strangers"):
        kept.put(strangers(tensors(first.folder), *strange), fingerprint(first), "strangers")
    return kept.content


def _seeds(name: str, seeds: Sequence[int]) -> Sequence[int]:
    return seeds[:1] if WAYS[name].once else seeds


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted(PARTS, asked.only)
    runs = Runs(asked.home(RUNS), (*asked.words, *(SHORT if asked.brief else ())))
    content = compare(names, runs, asked.short[0])
    for name, row in content["rows"].items():
        if "rate" in row:
            accuracy = f", accuracy {row['accuracy']:.3f}" if "accuracy" in row else ""
            print(f"{name}: {100 * row['rate']:.1f} % of bits{accuracy}")


if __name__ == "__main__":
    main()
