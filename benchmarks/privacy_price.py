"""What does privacy cost? Client-level privacy on experiments/privacy.yaml, three seeds.

100 and 1,000 simulated silos divide the same reviews, and train a head without a mechanism of
privacy and with ε of 16, 8, 4 and 2 for all rounds together. Beside them stand the model before any
training, and all reviews in one place with as many updates. For each number of silos all ε share a
learning rate, which is chosen at ε = 8 as rates.py says; training without noise, which does not
clip updates, has one of its own. The first clip norm is 13.874 times rate and steps, a 28th of the
longest update that AdamW can make of 148,610 numbers; then it follows the median of the updates'
norms. Accuracy is that of the test reviews, paired with those of the same silos without noise.

Whatever is finished stands in benchmarks/results/privacy_price.json and is not done again; all of
it takes two cores about 35 minutes.
"""

import math
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

EXPERIMENT = ROOT / "experiments" / "privacy.yaml"
RUNS = ROOT / "runs" / "benchmark-privacy-price"
SILOS = (100, 1000)
BUDGETS = (16.0, 8.0, 4.0, 2.0)  # ε of a whole run
JUDGE = 8.0  # the budget with which learning rates are chosen
STEPS = {100: 4, 1000: 1}  # of a silo in a round; each has more reviews where there are fewer
CLIP = 13.874  # the first clip norm ÷ rate and steps
BASE, POOLED, PLAIN = "base", "centralised", "no noise"


@dataclass(frozen=True)
class Way:
    """A row: so many silos, with a budget, without noise, or with all reviews in one place."""

    silos: int
    training: float | str  # ε, PLAIN or POOLED

    @property
    def name(self) -> str:
        """The name of the row."""
        training = f"ε {self.training:g}" if isinstance(self.training, float) else self.training
        return f"{self.silos:,} silos, {training}"

    @property
    def family(self) -> str:
        """The name of the rows that share a learning rate."""
        hidden = "with" if isinstance(self.training, float) else "without"
        return f"{self.silos:,} silos {hidden} noise"

    def settings(self, rate: float) -> tuple[str, ...]:
        """The settings of the row at this learning rate."""
        steps = STEPS[self.silos]
        own = (
            f"num_clients={self.silos}",
            f"train.learning_rate={rate}",
            f"train.max_steps={steps}",
        )
        if not isinstance(self.training, float):
            return (*own, "privacy=null", *(pooled(self.silos) if self.training == POOLED else ()))
        clip = rate * steps * CLIP
        part = "privacy.client_dp"
        return (*own, f"{part}.epsilon={self.training:g}", f"{part}.clip={clip:.3g}")


WAYS: Mapping[str, Way] = {
    way.name: way for way in (Way(n, t) for n in SILOS for t in (POOLED, PLAIN, *BUDGETS))
}
PARTS = {
    f"{silos:,} silos": [name for name, way in WAYS.items() if way.silos == silos]
    for silos in SILOS
}
FAMILIES = {
    judge.family: Family(rate, (judge.name,))
    for silos in SILOS
    for judge, rate in ((Way(silos, PLAIN), 3e-3), (Way(silos, JUDGE), 1e-2))
}


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that the learning rate is judged by; it looks at no test review."""
        words = ("evaluation.test=false", *WAYS[name].settings(rate))
        return self._task(f"tuning-{rate:g}-{_folder(name)}-{seed}", seed, *words)

    def untrained(self, seed: int) -> Task:
        """The model before any training, on the same reviews."""
        return self._task(f"tuning-base-{seed}", seed, "evaluation.test=false", *_untrained())

    def base(self, seed: int) -> Task:
        """The model before any training, on the test reviews."""
        return self._task(f"base-{seed}", seed, *_untrained())

    def compared(self, name: str, seed: int, rate: float) -> Task:
        """The run of one row with one seed."""
        return self._task(f"{_folder(name)}-{seed}", seed, *WAYS[name].settings(rate))

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


def line(name: str, tasks: Sequence[Task]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    runs = [outcome(task) for task in tasks]
    means = ("test_loss", "seconds")
    return {
        **{key: statistics.fmean(run[key] for run in runs) for key in means},
        **{key: runs[0][key] for key in ("epsilon", "noise_multiplier")},
        **spread.standing([spread.unpacked(run["items"]) for run in runs]),
        "runs": runs,
    }


def beside(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of the same silos without a mechanism."""
    for name, way in WAYS.items():
        plain = lines.get(Way(way.silos, PLAIN).name, {}).get("runs")
        if plain and way.training != PLAIN and "runs" in lines.get(name, {}):
            lines[name] |= spread.ahead_of(lines[name]["runs"], plain)


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("privacy_price", {"seeds": list(seeds), "deals": list(deals)})
    with Workers(workers) as some:
        family_of = {name: way.family for name, way in WAYS.items()}
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals, kept, some)
        plan = {BASE: [runs.base(seed) for seed in seeds]}
        for name in names:
            rate = rates.chosen(family_of[name])["rate"]
            plan[name] = [runs.compared(name, seed, rate) for seed in seeds]
        rows.finish(plan, kept, some, line, beside, (BASE, *WAYS))
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
