"""What does it cost to hide each row? DP-SGD in four silos, for several ε, three seeds.

experiments/private_rows.yaml with every ε, and without any. All ε share a learning rate, which is
chosen at ε = 8 as rates.py says; training without privacy has one of its own. Beside them stand the
base model, and all reviews in one place without privacy, with as many updates. Accuracy is that of
1,000 test reviews, paired with those of training without privacy; ε is that of `privacy.json`, the
largest of the silos.

Whatever is finished stands in benchmarks/results/row_privacy.json and is not done again; all of it
takes two cores about 20 minutes.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import protocol
import rows
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, pooled
from rates import Family, Rates

from hanse.journal import record_files, run_folder
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord

EXPERIMENT = ROOT / "experiments" / "private_rows.yaml"
RUNS = ROOT / "runs" / "benchmark-row-privacy"
NONE, BASE, POOLED, JUDGE = "none", "base", "centralised", "8"
SILOS = 4
EPSILONS = (16, 8, 4, 2)
PARTS = {"plain": [NONE, POOLED], "private": [str(epsilon) for epsilon in EPSILONS]}
FAMILIES = {"plain": Family(3e-3, (NONE,)), "private": Family(1e-2, (JUDGE,))}
FAMILY_OF = {way: part for part, ways in PARTS.items() for way in ways}


def settings(way: str) -> tuple[str, ...]:
    """The settings of a row: its ε, or no privacy."""
    if way in (NONE, POOLED):
        return ("privacy=none", *(pooled(SILOS) if way == POOLED else ()))
    return (f"privacy.example_dp.epsilon={way}",)


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, way: str, rate: float, seed: int) -> Task:
        """A run that the learning rate is judged by; it looks at no test review."""
        own = (*settings(way), f"train.learning_rate={rate}", "evaluation.test=false")
        return self._task(f"tuning-{way}-{rate:g}-{seed}", seed, *own)

    def untrained(self, seed: int) -> Task:
        """The model before any training, on the validation reviews."""
        own = ("privacy=none", "evaluation.test=false", *UNTRAINED)
        return self._task(f"tuning-base-{seed}", seed, *own)

    def compared(self, way: str, seed: int, rate: float) -> Task:
        """The run of one row with one seed."""
        own = (*settings(way), f"train.learning_rate={rate}")
        return self._task(f"{way}-{seed}", seed, *own)

    def base(self, seed: int) -> Task:
        """The model before any training, on the test reviews."""
        return self._task(f"base-{seed}", seed, "privacy=none", *UNTRAINED)

    def _task(self, folder: str, seed: int, *words: str) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *self.words, *words))


def outcome(task: Task) -> Row:
    """One seed's row: the test reviews that were right, and what privacy cost."""
    last = run_folder.read_rounds(task.folder)[-1].round
    found = run_folder.read_evaluation(task.folder, "test-classification", last)
    account = record_files.read(task.folder / PRIVACY, PrivacyRecord)
    noise = None if account is None else account.noise_multiplier
    return {
        "items": spread.packed(protocol.items(task)),
        "test_loss": found.metrics["loss"],
        "epsilon": None if account is None else account.epsilon,
        "noise_multiplier": noise,
    }


def line(name: str, tasks: Sequence[Task]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    runs = [outcome(task) for task in tasks]
    return {
        "test_loss": statistics.fmean(run["test_loss"] for run in runs),
        **spread.standing([spread.unpacked(run["items"]) for run in runs]),
        "runs": runs,
    }


def beside(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of training without privacy."""
    plain = lines.get(NONE, {}).get("runs")
    for name, row in lines.items():
        if plain and name != NONE and "runs" in row:
            row |= spread.ahead_of(row["runs"], plain)


def compare(
    ways: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("row_privacy", {"seeds": list(seeds), "deals": list(deals)})
    with Workers(workers) as some:
        rates = Rates(FAMILIES, FAMILY_OF, runs.tuning, runs.untrained, deals, kept, some)
        judged = {FAMILIES[FAMILY_OF[way]].judges[0] for way in ways}
        chosen = {FAMILY_OF[judge]: rates.validated([judge])[judge]["rate"] for judge in judged}
        plan = {BASE: [runs.base(seed) for seed in seeds]}
        for way in ways:
            plan[way] = [runs.compared(way, seed, chosen[FAMILY_OF[way]]) for seed in seeds]
        rows.finish(plan, kept, some, line, beside, (BASE, *FAMILY_OF))
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    ways = protocol.wanted(PARTS, asked.only)
    content = compare(ways, Runs(asked.home(RUNS), asked.words), *asked.short)
    for name, row in content["rows"].items():
        if "runs" in row:
            print(f"ε {name}: accuracy {row['accuracy']:.3f}, loss {row['test_loss']:.4f}")


if __name__ == "__main__":
    main()
