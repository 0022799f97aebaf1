"""Do unequal models learn from each other? Four methods on experiments/distillation.yaml.

Three seeds. Silos hold 200 reviews each, and score their own models on 300 others; the server's
model is scored on 1,000 reviews after the last round. Beside the methods stand all models as they
are, each silo alone, FedAvg of the small model, that model with all reviews in one place, and the
large model with the public reviews alone. A method trains a silo's model as long as the silo does
alone, and the server's as long as public reviews alone do; what a silo learns from others comes on
top of that.

Learning rates are chosen as rates.py says: one for all that silos train, by the reviews that they
hold out, and one for the large model, by the server's validation reviews.

Whatever is finished stands in benchmarks/results/distillation.json and is not done again. All of it
takes two cores about an hour, and models and rows six minutes before that (unequal_models.py).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import protocol
import rows
import spread
import unequal_models
from distillation_ways import (
    AT_SERVER,
    AT_SILOS,
    BASELINE,
    FAMILIES,
    JUDGES,
    PARTS,
    SERVER_BASELINE,
    SILOS,
    WAYS,
    Part,
)
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name
from rates import Rates

from hanse.journal import run_folder

EXPERIMENT = ROOT / "experiments" / "distillation.yaml"
RUNS = ROOT / "runs" / "benchmark-distillation"
Found = dict[str, float]  # of a family: its learning rate


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by; it looks at no test review."""
        personal = any(name in family.judges for family in FAMILIES.values() if family.personal)
        held_out = ("data.validation=0",) if personal else ()
        unseen = (f"train.learning_rate={rate}", "evaluation.test=false", *held_out)
        return self._task(f"tuning-{file_name(name)}-{rate:g}-{seed}", seed, JUDGES[name], *unseen)

    def compared(self, name: str, seed: int, rates: Found) -> list[Task]:
        """The runs of one row with one seed."""
        way = WAYS[name]
        return [
            self._task(f"{part.name}-{seed}", seed, part, *_rates(part, rates))
            if way.trained
            else self._task(f"base-{part.name}-{seed}", seed, part, *UNTRAINED)
            for part in way.parts
        ]

    def _task(self, folder: str, seed: int, part: Part, *words: str) -> Task:
        own = (f"seed={seed}", *part.words, *self.words, *words)
        return Task(self.home / folder, EXPERIMENT, own)


def _rates(part: Part, rates: Found) -> tuple[str, ...]:
    """The settings of a compared run: learning rates, and no validation."""
    silos = tuple(f"clients.{s}.train.learning_rate={rates[AT_SILOS]}" for s in SILOS)
    others = rates[AT_SERVER if part.at_server else AT_SILOS]
    return (*silos, f"train.learning_rate={others}", "data.validation=0")


def outcome(name: str, tasks: Sequence[Task]) -> Row:
    """One seed's row: what silos' own models got right of their reviews, and the server's model."""
    way = WAYS[name]
    row: Row = {}
    if way.at_silos:
        row |= _at_silos(way.parts, tasks)
    if way.at_server:
        (task,) = tasks
        last = run_folder.read_rounds(task.folder)[-1].round
        found = run_folder.read_evaluation(task.folder, way.score, last)
        beside = way.score.removeprefix("test-").removesuffix("classification")
        row |= {"items": spread.packed(found.items), "test_loss": found.metrics[f"{beside}loss"]}
    records = [r for task in tasks for r in run_folder.read_rounds(task.folder) if r.round]
    row |= {"up_bytes": records[-1].bytes.up, "down_bytes": records[-1].bytes.down}
    return row


def _at_silos(parts: Sequence[Part], tasks: Sequence[Task]) -> Row:
    """The scores of silos' own models on their own reviews, pooled and of each silo."""
    scores: dict[str, dict[str, float]] = {}
    held: dict[str, float] = {}
    for part, task in zip(parts, tasks, strict=True):
        found, rows = run_folder.read_rounds(task.folder)[-1].client_test, protocol.held_out(task)
        scores |= {silo: dict(found[silo]) for silo in part.silos}
        held |= {silo: rows[silo] for silo in part.silos}
    total = sum(held.values())
    pooled = {
        metric: sum(scores[silo][metric] * held[silo] for silo in held) / total
        for metric in ("accuracy", "loss")
    }
    return {
        "own_items": round(total),
        "own_accuracy": pooled["accuracy"],
        "own_loss": pooled["loss"],
        "by_silo": {silo: scores[silo]["accuracy"] for silo in sorted(held)},
    }


def line(name: str, tasks: Sequence[Task]) -> Row:
    """All seeds of one row: means with intervals, and the seeds themselves."""
    way, size = WAYS[name], len(WAYS[name].parts)
    by_seed = (tasks[place : place + size] for place in range(0, len(tasks), size))
    runs = [outcome(name, some) for some in by_seed]
    row: Row = {"at_silos": way.at_silos, "at_server": way.at_server, "together": way.together}
    if way.at_silos:
        row["own"] = _own([run["own_accuracy"] for run in runs], runs[0]["own_items"])
    if way.at_server:
        row["server"] = spread.standing([spread.unpacked(run["items"]) for run in runs])
    kinds = ("up_bytes", "down_bytes", "own_loss", "test_loss")
    means = {k: statistics.fmean(run[k] for run in runs) for k in kinds if k in runs[0]}
    return {**row, **means, "runs": runs}


def _own(values: Sequence[float], items: int) -> Row:
    """The mean of silos' own models over seeds, with both intervals; items: reviews of a seed."""
    mean, interval = statistics.fmean(values), spread.over_seeds(values)
    half = 1.96 * math.sqrt(mean * (1 - mean) / items)
    return {
        "accuracy": mean,
        "seeds": list(values),
        "over_seeds": interval[1:] if interval else None,
        "over_items": [mean - half, mean + half],
        "test_items": items,
    }


def beside(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of its baselines, at silos and at the server."""
    for name, row in lines.items():
        own, server = (lines.get(table.get(name, ""), {}) for table in (BASELINE, SERVER_BASELINE))
        if "runs" not in row:
            continue
        if "own" in row and "own" in own:
            pairs = zip(row["own"]["seeds"], own["own"]["seeds"], strict=True)
            row["own_ahead"] = spread.over_seeds([one - other for one, other in pairs])
        if "server" in row and "server" in server:
            row |= spread.ahead_of(row["runs"], server["runs"])
    both, labels = (lines.get(name, {}) for name in ("fedcollm", "fedcollm without distillation"))
    if "runs" in both and "runs" in labels:
        both["by_distillation"] = spread.ahead_of(both["runs"], labels["runs"])


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("distillation", {"seeds": list(seeds), "deals": list(deals)})
    with Workers(workers) as some:
        judged = Rates(FAMILIES, {}, runs.tuning, None, deals, kept, some)
        rates = {family: judged.chosen(family)["rate"] for family in FAMILIES}
        plan = {n: [t for seed in seeds for t in runs.compared(n, seed, rates)] for n in names}
        rows.finish(plan, kept, some, line, beside, WAYS)
    return kept.content


def main() -> None:
    """Make models and rows, then what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    unequal_models.make()
    names = protocol.wanted(PARTS, asked.only)
    content = compare(names, Runs(asked.home(RUNS), asked.words), *asked.short)
    for name, row in content["rows"].items():
        scores = [
            f"{kind} {row[kind]['accuracy']:.3f}" for kind in ("own", "server") if kind in row
        ]
        print(f"{name}: {', '.join(scores) or row['no_result']}")


if __name__ == "__main__":
    main()
