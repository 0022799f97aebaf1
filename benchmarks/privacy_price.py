"""What does privacy cost? Client-level privacy on experiments/privacy.yaml, three seeds.

100 and 1,000 simulated silos divide the same reviews, and train without a mechanism of privacy and
with ε of 16, 8, 4 and 2 for all rounds together. Beside them stands the model before any training.
The learning rate is chosen for each number of silos with ε = 8, as rates.py says but on a single
deal; the clip norm follows the median of the updates' norms. Accuracy is that of the test reviews,
paired with those of the same silos without a mechanism.

Whatever is finished stands in benchmarks/results/privacy_price.json and is not done again.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import protocol
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, fingerprint
from rates import Family, Rates

from hanse.journal import record_files, run_folder
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord

EXPERIMENT = ROOT / "experiments" / "privacy.yaml"
RUNS = ROOT / "runs" / "benchmark-privacy-price"
SILOS = (100, 1000)
BUDGETS = (16.0, 8.0, 4.0, 2.0)  # ε of a whole run
JUDGE = 8.0  # the budget with which learning rates are chosen
STEPS = {100: 4, 1000: 1}  # of a silo in a round; each has more reviews where there are fewer
BASE = "base"


@dataclass(frozen=True)
class Way:
    """A row: so many silos with this budget; None: without a mechanism of privacy."""

    silos: int
    budget: float | None

    @property
    def name(self) -> str:
        """The name of the row."""
        budget = "no noise" if self.budget is None else f"ε {self.budget:g}"
        return f"{family(self.silos)}, {budget}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the row."""
        size = (f"num_clients={self.silos}", f"train.max_steps={STEPS[self.silos]}")
        if self.budget is None:
            return (*size, "privacy=null")
        return (*size, f"privacy.client_dp.epsilon={self.budget:g}")


def family(silos: int) -> str:
    """The name of the rows that share a learning rate."""
    return f"{silos:,} silos"


WAYS: Mapping[str, Way] = {
    way.name: way for way in (Way(n, budget) for n in SILOS for budget in (None, *BUDGETS))
}
PARTS = {family(n): [name for name, way in WAYS.items() if way.silos == n] for n in SILOS}
FAMILIES = {family(n): Family(1e-2, (Way(n, JUDGE).name,)) for n in SILOS}


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that the learning rate is judged by; it looks at no test review."""
        words = (f"train.learning_rate={rate}", "evaluation.test=false", *WAYS[name].settings)
        return self._task(f"tuning-{rate:g}-{_folder(name)}-{seed}", seed, *words)

    def untrained(self, seed: int) -> Task:
        """The model before any training, on the same reviews."""
        return self._task(f"tuning-base-{seed}", seed, "evaluation.test=false", *_untrained())

    def base(self, seed: int) -> Task:
        """The model before any training, on the test reviews."""
        return self._task(f"base-{seed}", seed, *_untrained())

    def compared(self, name: str, seed: int, rate: float) -> Task:
        """The run of one row with one seed."""
        words = (f"train.learning_rate={rate}", *WAYS[name].settings)
        return self._task(f"{_folder(name)}-{seed}", seed, *words)

    def _task(self, folder: str, seed: int, *words: str) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *words, *self.words))


def _folder(name: str) -> str:
    return protocol.file_name(name).replace(",", "").replace("ε", "epsilon")


def _untrained() -> tuple[str, ...]:
    return ("privacy=null", "num_clients=4", *UNTRAINED)


def outcome(task: Task) -> Row:
    """One seed's row."""
    records = [record for record in run_folder.read_rounds(task.folder) if record.round]
    last = run_folder.read_evaluation(task.folder, "test-classification", records[-1].round)
    account = record_files.read(task.folder / PRIVACY, PrivacyRecord)
    return {
        "test_loss": last.metrics["loss"],
        "items": spread.packed(protocol.items(task)),
        "seconds": sum(sum(record.seconds.values()) for record in records),
        "epsilon": account.epsilon if account else None,
        "noise_multiplier": account.noise_multiplier if account else None,
        "clip": account.clip if account else None,
    }


def line(runs: Sequence[Row]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    means = ("test_loss", "seconds")
    return {
        **{key: statistics.fmean(run[key] for run in runs) for key in means},
        **{key: runs[0][key] for key in ("epsilon", "noise_multiplier")},
        **spread.standing([spread.unpacked(run["items"]) for run in runs]),
        "runs": list(runs),
    }


def beside(rows: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of the same silos without a mechanism."""
    for name, way in WAYS.items():
        plain = rows.get(Way(way.silos, None).name, {}).get("runs")
        if plain and way.budget is not None and "runs" in rows.get(name, {}):
            rows[name] |= spread.ahead_of(rows[name]["runs"], plain)


@dataclass
class Prices:
    """The comparison as far as it is."""

    runs: Runs
    seeds: Sequence[int]
    rates: Rates
    kept: Kept
    workers: Workers

    def make(self, names: Sequence[str]) -> None:
        """Choose the learning rates, then finish the base and the rows of these names."""
        chosen = {name: self.rates.chosen(family(WAYS[name].silos))["rate"] for name in names}
        plan = {BASE: [self.runs.base(seed) for seed in self.seeds]}
        for name, rate in chosen.items():
            plan[name] = [self.runs.compared(name, seed, rate) for seed in self.seeds]
        left = {n: t for n, t in plan.items() if not self.kept.row(fingerprint(*t), "rows", n)}
        for name in self.workers.groups(left):
            self._put(name, left[name])

    def _put(self, name: str, tasks: Sequence[Task]) -> None:
        made = fingerprint(*tasks)
        if not all(task.finished for task in tasks):
            self.kept.put({"no_result": "diverged on one of the deals"}, made, "rows", name)
            return
        self.kept.put(line([outcome(task) for task in tasks]), made, "rows", name)
        rows = self.kept.content["rows"]
        self.kept.content["rows"] = {each: rows[each] for each in (BASE, *WAYS) if each in rows}
        beside(self.kept.content["rows"])
        self.kept.write()


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("privacy_price", {"seeds": list(seeds), "deal": deals[0]})
    with Workers(workers) as some:
        family_of = {name: family(way.silos) for name, way in WAYS.items()}
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals[:1], kept, some)
        Prices(runs, seeds, rates, kept, some).make(names)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted(PARTS, asked.only)
    content = compare(names, Runs(asked.home(RUNS), asked.words), *asked.short)
    for name, row in content["rows"].items():
        if "runs" in row:
            ahead = row.get("ahead") or [math.nan]
            print(f"{name}: {row['accuracy']:.3f}, {100 * ahead[0]:+.1f} points of no noise")


if __name__ == "__main__":
    main()
