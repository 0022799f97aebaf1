"""What does a byte buy? Every codec on experiments/wire.yaml, three seeds.

All codecs share the learning rate of the upload without one, chosen as rates.py says, and send with
error feedback. Beside them stand the base model, and all reviews in one place with as many updates
between two resets of the optimizer. The loss is that of the validation reviews, after 6, 20 and all
60 rounds; bytes are those of all uploads, and those until the loss is as low as the one that no
codec has in the end. Accuracy is that of the test reviews, paired with those of no codec. The time
of a link is that of the slowest silo's messages at LINK, without training.

Whatever is finished stands in benchmarks/results/wire.json and is not done again; all of it takes
two cores about 40 minutes.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import protocol
import rows
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, pooled
from rates import Family, Rates

from hanse.journal import run_folder
from hanse.journal.records import RoundRecord

EXPERIMENT = ROOT / "experiments" / "wire.yaml"
RUNS = ROOT / "runs" / "benchmark-wire"
SILOS = 4
SHOWN = (6, 20, 60)  # rounds after which the loss is compared
LINK = {"up": 10e6, "down": 50e6}  # bits a second
NONE, POOLED, BASE = "none", "centralised", "base"
FAMILY = "changes of LoRA"
FAMILIES = {FAMILY: Family(1e-3, (NONE,))}

CODECS: Mapping[str, str] = MappingProxyType(
    {
        NONE: "[]",
        "bf16": "[bf16]",
        "int8": "[int8]",
        "int4": "[int4]",
        "nf4": "[nf4]",
        "sign": "[sign]",
        "top_k 10 %": "[{top_k: {share: 0.1}}]",
        "top_k 1 %": "[{top_k: {share: 0.01}}]",
        "top_k 10 %, int8, zstd": "[{top_k: {share: 0.1}}, int8, zstd]",
        "top_k 1 %, int8, zstd": "[{top_k: {share: 0.01}}, int8, zstd]",
        "rand_k 1 %": "[{rand_k: {share: 0.01}}]",
        "powersgd": "[powersgd]",
    }
)
PARTS = {
    "dense": [NONE, POOLED, "bf16", "int8", "int4", "nf4", "sign"],
    "sparse": [name for name in CODECS if "_k" in name],
    "low rank": ["powersgd"],
}


def settings(name: str) -> tuple[str, ...]:
    """The settings of a row: its codecs of the upload, or all reviews in one place."""
    if name == POOLED:
        return pooled(SILOS)
    if name == NONE:
        return ()
    return (f"compression={{upload: {CODECS[name]}, error_feedback: true}}",)


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that the learning rate is judged by; it looks at no test review."""
        rate_word = f"train.learning_rate={rate}"
        return self._task(f"tuning-{rate:g}-{seed}", seed, rate_word, *self._unseen())

    def untrained(self, seed: int) -> Task:
        """The model before any training, on the same reviews."""
        return self._task(f"tuning-base-{seed}", seed, *self._unseen(), last=UNTRAINED)

    def base(self, seed: int) -> Task:
        """The model before any training, on the test reviews."""
        return self._task(f"base-{seed}", seed, last=UNTRAINED)

    def compared(self, name: str, seed: int, rate: float) -> Task:
        """The run of one row with one seed."""
        rate_word = f"train.learning_rate={rate}"
        return self._task(f"{file_name(name)}-{seed}", seed, rate_word, *settings(name))

    def _unseen(self) -> tuple[str, ...]:
        return "evaluation.test=false", f"rounds={SHOWN[1]}", "evaluation.validate_every=0"

    def _task(self, folder: str, seed: int, *words: str, last: tuple[str, ...] = ()) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *words, *self.words, *last))


def rounds(task: Task) -> list[RoundRecord]:
    """The records of a run's rounds, without the one before training."""
    return [record for record in run_folder.read_rounds(task.folder) if record.round]


def outcome(task: Task, bound: float | None) -> Row:
    """One seed's row; bound: the loss that no codec has in the end, if that is known."""
    records = rounds(task)
    losses = [record.validation["loss"] for record in records]
    up = [record.bytes.up for record in records]
    slowest = [_slowest(task, record.round) for record in records]
    reached = next((n for n, loss in enumerate(losses) if bound and loss <= bound), None)
    last = run_folder.read_evaluation(task.folder, "test-classification", records[-1].round)
    return {
        "losses": losses,
        "test_loss": last.metrics["loss"],
        "items": spread.packed(protocol.items(task)),
        "up_bytes": statistics.fmean(up),
        "bytes_until": None if reached is None else sum(up[: reached + 1]),
        "link_seconds": statistics.fmean(slowest),
    }


def _slowest(task: Task, round: int) -> float:
    """The seconds that the slowest silo's training messages of a round take on the link."""
    ledger = [row for row in run_folder.read_ledger(task.folder) if row.round == round]
    sent = [row for row in ledger if row.kind == "train"]
    return max(8 * (row.down / LINK["down"] + row.up / LINK["up"]) for row in sent)


def line(runs: Sequence[Row]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    shown = [number for number in SHOWN if number <= len(runs[0]["losses"])] or [
        len(runs[0]["losses"])
    ]
    until = [run["bytes_until"] for run in runs]
    means = ("test_loss", "up_bytes", "link_seconds")
    return {
        **{key: statistics.fmean(run[key] for run in runs) for key in means},
        "loss": {str(n): statistics.fmean(run["losses"][n - 1] for run in runs) for n in shown},
        "bytes_until": None if None in until else statistics.fmean(until),
        "reached": sum(value is not None for value in until),
        **spread.standing([spread.unpacked(run["items"]) for run in runs]),
        "runs": list(runs),
    }


def beside(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of no codec, and its bytes as a share of those."""
    plain = lines.get(NONE, {}).get("runs")
    for name, row in lines.items():
        if not plain or name == NONE or "runs" not in row:
            continue
        row |= spread.ahead_of(row["runs"], plain)
        row["share"] = row["up_bytes"] / lines[NONE]["up_bytes"]


@dataclass
class Frontier:
    """The comparison as far as it is."""

    runs: Runs
    seeds: Sequence[int]
    rates: Rates
    kept: Kept
    workers: Workers

    def make(self, names: Sequence[str]) -> None:
        """Choose the rate, then finish the base, no codec, and the rows of these names."""
        rate = self.rates.validated([NONE])[NONE]["rate"]
        plan = {
            name: [self.runs.compared(name, seed, rate) for seed in self.seeds]
            for name in dict.fromkeys([NONE, *names])
        }
        first = {BASE: [self.runs.base(seed) for seed in self.seeds], NONE: plan.pop(NONE)}
        for part in (first, plan):  # the loss that no codec has in the end is a bound of the others
            self._finish(part)

    def _finish(self, plan: Mapping[str, Sequence[Task]]) -> None:
        """Finish the rows of a plan."""
        order = (BASE, POOLED, *CODECS)
        rows.finish(plan, self.kept, self.workers, self._line, beside, order)

    def _line(self, name: str, tasks: Sequence[Task]) -> Row:
        plain = self.kept.content.get("rows", {}).get(NONE, {}).get("runs")
        bounds = [run["losses"][-1] for run in plain] if plain else [None] * len(tasks)
        return line([outcome(task, bound) for task, bound in zip(tasks, bounds, strict=True)])


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("wire", {"seeds": list(seeds), "deals": list(deals), "link": LINK})
    with Workers(workers) as some:
        family_of = {NONE: FAMILY}
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals, kept, some)
        Frontier(runs, seeds, rates, kept, some).make(names)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted(PARTS, asked.only)
    content = compare(names, Runs(asked.home(RUNS), asked.words), *asked.short)
    for name, row in content["rows"].items():
        if "runs" in row:
            shown = " ".join(f"{loss:.4f}" for loss in row["loss"].values())
            print(f"{name}: {row['up_bytes']:,.0f} B a round, loss {shown}, {row['accuracy']:.3f}")


if __name__ == "__main__":
    main()
