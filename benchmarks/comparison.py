"""Which algorithm? All of them on experiments/comparison.yaml, dealt alike and unlike, three seeds.

Beside them stand the base model, and all reviews in one place with as many updates in a row, and
the same resets of the optimizer, as a silo of mean size has. How learning rates are chosen is said
in rates.py; the deals of the search are unlike. Runs take turns in two processes of one thread
each; what a round takes is then measured with one at a time.

Whatever is finished stands in benchmarks/results/comparison.json and is not done again. All of it
takes two cores about two hours, so it is made in parts, each within 40 minutes by the seconds that
earlier runs took (52 for a scored run beside another, about 35 for one of the search):

    --only plain      about 30 minutes    --only sgd        about 20 minutes
    --only factors    about 25 minutes    --only cores      about 10 minutes
                                          --only personal   about 30 minutes

Every further rate that a search tries adds a minute, `personal` three. Make `plain` first: it has
the base model, which all are validated against, and the baseline.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import protocol
import spread
from algorithm_ways import BASE, BASELINE, FAMILIES, PARTS, WAYS
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, fingerprint
from rates import Rates

from hanse.journal import run_folder
from hanse.journal.round_costs import training_seconds

EXPERIMENT = ROOT / "experiments" / "comparison.yaml"
RUNS = ROOT / "runs" / "benchmark-comparison"
DEALS = {"alike": "data.partition=iid", "unlike": "data.partition.dirichlet.alpha=0.1"}


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by; it looks at no test review."""
        own = (*WAYS[name].settings, f"train.learning_rate={rate}", *self._unseen(seed))
        return self._task(f"tuning-{file_name(name)}-{rate:g}-{seed}", *own)

    def untrained(self, seed: int) -> Task:
        """The base model on the same reviews."""
        return self._task(f"tuning-{BASE}-{seed}", *self._unseen(seed), last=UNTRAINED)

    def _unseen(self, seed: int) -> tuple[str, ...]:
        return f"seed={seed}", "evaluation.test=false", DEALS["unlike"]

    def compared(self, name: str, deal: str, seed: int, rate: float) -> Task:
        """A run that is compared with others; scoring is not to take longer than training."""
        scored = (f"seed={seed}", DEALS[deal], "data.validation=0", "data.client_test=0.05")
        folder = f"{file_name(name)}-{deal}-{seed}"
        if name == BASE:
            return self._task(folder, *scored, last=UNTRAINED)
        own = (*WAYS[name].settings, f"train.learning_rate={rate}")
        return self._task(folder, *own, *scored)

    def timing(self, name: str, place: str = "") -> Task:
        """A short run of silos of equal size, which has the processor to itself."""
        own = (*WAYS[name].settings, f"seed={protocol.SEEDS[0]}", DEALS["alike"], "rounds=3")
        unseen = ("data.validation=0", "evaluation.test=false", "evaluation.clients=false")
        return self._task(f"timing-{file_name(name)}{place}", *own, *unseen)

    def _task(self, folder: str, *words: str, last: tuple[str, ...] = ()) -> Task:
        return Task(self.home / folder, EXPERIMENT, (*words, *self.words, *last))


def outcome(task: Task) -> Row:
    """What a run came to."""
    records = run_folder.read_rounds(task.folder)
    rounds = [record for record in records if record.round]
    right = protocol.items(task)
    return {
        "accuracy": statistics.fmean(right),
        "items": spread.packed(right),
        "test_items": len(right),
        "own_accuracy": protocol.own(task, "accuracy"),
        "own_items": round(sum(protocol.held_out(task).values())),
        "up_bytes": sum(record.bytes.up for record in rounds) / len(rounds),
        "down_bytes": sum(record.bytes.down for record in rounds) / len(rounds),
        "seconds": sum(sum(record.seconds.values()) for record in records),
    }


def seconds(task: Task) -> dict[str, float]:
    """What a round takes of a run that is timed."""
    later = [record.seconds for record in run_folder.read_rounds(task.folder) if record.round]
    return {
        "training_seconds": statistics.median(training_seconds(row) for row in later),
        "server_seconds": statistics.median(row["aggregation"] for row in later),
    }


def line(name: str, runs: Sequence[Row]) -> Row:
    """All seeds of one way on one deal."""
    way = WAYS.get(name)
    means = {key: statistics.fmean(run[key] for run in runs) for key in runs[0] if key != "items"}
    row: Row = {"family": way.family if way else None, **means, "seeds": list(runs)}
    if way is None or way.one_place:
        row |= {"up_bytes": None, "down_bytes": None}
    return row


def beside(ways: dict[str, Row]) -> None:
    """Note in each line of one deal how far it is ahead of the baseline's, if that has a result.

    ahead: on the test reviews, with an interval over these; ahead_by_seed: the same over seeds,
    for which the silos' deal differs, too; own_ahead: on the silos' own reviews, over seeds. Where
    silos keep models of their own, the server's scores are of none of these.
    """
    baseline = ways.get(BASELINE, {}).get("seeds")
    for name, row in ways.items():
        row |= {"ahead": None, "ahead_by_seed": None, "own_ahead": None}
        if not row.get("seeds") or not baseline or name == BASELINE:
            continue
        row |= spread.ahead_of(row["seeds"], baseline)
        both = zip(row["seeds"], baseline, strict=True)
        row["own_ahead"] = spread.over_seeds(
            [a["own_accuracy"] - b["own_accuracy"] for a, b in both]
        )


@dataclass
class Comparison:
    """The comparison as far as it is."""

    runs: Runs
    seeds: Sequence[int]
    rates: Rates
    kept: Kept
    workers: Workers

    def make(self, names: Sequence[str]) -> None:
        """Choose rates, then finish the lines of these ways, base and baseline before them."""
        names = list(dict.fromkeys([BASELINE, *names]))
        found = self.rates.validated(names)
        plan = {
            key: tasks
            for key, tasks in self._planned(found)
            if self.kept.row(fingerprint(*tasks), "deals", *key[::-1]) is None
        }
        for name, deal in self.workers.groups(plan):
            self._put(name, deal, plan[name, deal])
        self._time([name for name in names if not found[name]["no_result"]])

    def _planned(self, validated: dict[str, Row]) -> Iterator[tuple[tuple[str, str], list[Task]]]:
        """The runs of every line; a way without a result at its rate has none."""
        for name, row in {BASE: {"rate": 0.0, "no_result": None}, **validated}.items():
            for deal in DEALS:
                if row["no_result"]:
                    self._refuse(name, deal, row["no_result"])
                else:
                    runs = [self.runs.compared(name, deal, s, row["rate"]) for s in self.seeds]
                    yield (name, deal), runs

    def _refuse(self, name: str, deal: str, why: str) -> None:
        row = {"family": WAYS[name].family, "no_result": why}
        self._keep(name, deal, row, "")

    def _put(self, name: str, deal: str, tasks: Sequence[Task]) -> None:
        """Keep a line whose runs are done, or have diverged."""
        if all(task.finished for task in tasks):
            self._keep(name, deal, line(name, [*map(outcome, tasks)]), fingerprint(*tasks))
        else:
            self._refuse(name, deal, "diverged on one of the deals")

    def _keep(self, name: str, deal: str, row: Row, made: str) -> None:
        """Keep a line, in the order in which ways are shown, and bring the others up to date."""
        self.kept.put(row, made, "deals", deal, name)
        lines = self.kept.content["deals"][deal]
        order = [each for each in (BASE, *WAYS) if each in lines]
        self.kept.content["deals"][deal] = {each: lines[each] for each in order}
        beside(self.kept.content["deals"][deal])
        self.kept.write()

    def _time(self, names: Sequence[str]) -> None:
        """Measure what rounds take, one run at a time."""
        tasks = {name: self.runs.timing(name) for name in names if not WAYS[name].one_place}
        left = {n: t for n, t in tasks.items() if not self.kept.row(fingerprint(t), "rounds", n)}
        if not left:
            return
        with Workers(min(1, self.workers.number)) as one:
            # All see the same reviews, which are new to the first run alone.
            one.finish([self.runs.timing(BASELINE, "-first"), *left.values()])
        for name, task in left.items():
            self.kept.put(seconds(task), fingerprint(task), "rounds", name)


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish the lines of these ways; the content of the result file."""
    family_of = {name: way.family for name, way in WAYS.items()}
    kept = Kept("comparison", {"seeds": list(seeds), "deals": list(deals)})
    with Workers(workers) as some:
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals, kept, some)
        Comparison(runs, seeds, rates, kept, some).make(names)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each way."""
    asked = protocol.asked(__doc__)
    content = compare(
        protocol.wanted(PARTS, asked.only), Runs(asked.home(RUNS), asked.words), *asked.short
    )
    for deal, ways in content["deals"].items():
        for name, row in ways.items():
            print(
                deal,
                name,
                row.get("no_result") or f"{row['accuracy']:.3f} {row['ahead']}",
                sep="  ",
            )


if __name__ == "__main__":
    main()
