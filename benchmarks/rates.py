"""Learning rates: shared within a family of methods, chosen on several deals, and checked.

A family's rate is the one of the highest mean validation accuracy of its judges over three deals
that serve nothing else. The search goes on until the best rate has a worse one on either side.
Every method is then validated at that rate on the same deals. One that is not above the untrained
model there has no result, nor has one whose family's best rate is the last that was tried.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import protocol
from many_runs import Task, Workers
from protocol import Kept, Row, fingerprint

from hanse.journal import run_folder

WIDENED = 4  # rates that are tried beyond either end before the search gives up

Score = tuple[float, float]  # accuracy, and what decides between equals: minus the loss
WORST: Score = (0.0, -math.inf)  # of a run that diverged


@dataclass(frozen=True)
class Family:
    """Methods that share a learning rate.

    around: the rate with which the search begins, one below and one above it.
    judges: the methods whose validation decides.
    personal: whether silos keep models of their own, so that the reviews they hold out decide; the
        server, which has none of these models, could only score another one.
    beside: the name of the model at the server whose scores decide; empty: the trained one.
    """

    around: float
    judges: tuple[str, ...]
    personal: bool = False
    beside: str = ""


@dataclass(frozen=True)
class Choice:
    """The best rate, all that were tried, and whether the best has worse ones on both sides."""

    rate: float
    inside: bool
    tried: dict[float, Score]


def rate_at(place: int) -> float:
    """Two learning rates a decade: place -6 is 0.001, -5 is 0.003, -4 is 0.01."""
    return float(f"{(1, 3)[place % 2]}e{place // 2}")


def search(around: float, scored: Callable[[Sequence[float]], Sequence[Score]]) -> Choice:
    """The best rate; scored: the scores of some rates, whose runs may be done side by side."""
    middle = round(2 * math.log10(around))
    low, high = middle - 1, middle + 1
    tried: dict[int, Score] = {}
    while True:
        new = [place for place in range(low, high + 1) if place not in tried]
        tried |= zip(new, scored([rate_at(place) for place in new]), strict=True)
        best = max(sorted(tried), key=tried.__getitem__)
        if best == low and middle - low <= WIDENED:
            low -= 1
        elif best == high and high - middle <= WIDENED:
            high += 1
        else:
            found = {rate_at(place): tried[place] for place in sorted(tried)}
            return Choice(rate_at(best), low < best < high, found)


def validated(task: Task, family: Family) -> Score:
    """A run's score on the server's validation reviews, or on those that silos hold out."""
    if not task.finished:
        return WORST
    if family.personal:
        return protocol.own(task, "accuracy"), -protocol.own(task, "loss")
    scores = run_folder.read_rounds(task.folder)[-1].validation
    of = f"{family.beside}." if family.beside else ""
    return scores[f"{of}accuracy"], -scores[f"{of}loss"]


def mean(scores: Sequence[Score]) -> Score:
    """The mean of several runs, judges and deals alike."""
    accuracy, loss = (statistics.fmean(one) for one in zip(*scores, strict=True))
    return accuracy, loss


@dataclass(frozen=True)
class Rates:
    """The learning rates of a benchmark's methods.

    family_of: each method's family, by name. tuning: the run of a method at a rate on a deal, which
    looks at no test review. untrained: the untrained model on a deal. deals: their seeds.
    """

    families: Mapping[str, Family]
    family_of: Mapping[str, str]
    tuning: Callable[[str, float, int], Task]
    untrained: Callable[[int], Task] | None  # None: nothing is validated beside it
    deals: Sequence[int]
    kept: Kept
    workers: Workers

    def chosen(self, name: str) -> Row:
        """A family's rate, with all rates that were tried; searched for if it is not kept."""
        family = self.families[name]
        judged = [task for judge in family.judges for task in self._runs(judge, family.around)]
        made = fingerprint(*judged)
        found = self.kept.row(made, "families", name)
        if found is None:
            choice = search(family.around, lambda rates: self._scored(family, rates))
            tried = {f"{rate:g}": accuracy for rate, (accuracy, _) in choice.tried.items()}
            row = {"rate": choice.rate, "inside": choice.inside, "tried": tried}
            self.kept.put({**row, "judges": list(family.judges)}, made, "families", name)
            found = {**row, "made": made}
        return found

    def validated(self, names: Sequence[str]) -> dict[str, Row]:
        """Each method at its family's rate beside the untrained model, on validation reviews."""
        if self.untrained is None:
            raise ValueError("methods are validated beside the untrained model, and there is none")
        base = [self.untrained(deal) for deal in self.deals]
        choices = {name: self.chosen(self.family_of[name]) for name in names}
        runs = {name: self._runs(name, choice["rate"]) for name, choice in choices.items()}
        left = [n for n in names if not self.kept.row(fingerprint(*runs[n], *base), "validated", n)]
        if left:
            self.workers.finish([*base, *(task for name in left for task in runs[name])])
        for name in left:
            row = self._beside(base, runs[name], self.families[self.family_of[name]])
            row["no_result"] = _refused(choices[name], row)
            made = fingerprint(*runs[name], *base)
            self.kept.put({"rate": choices[name]["rate"], **row}, made, "validated", name)
        kept: dict[str, Row] = self.kept.content["validated"]
        return {name: kept[name] for name in names}

    def _beside(self, base: Sequence[Task], own: Sequence[Task], family: Family) -> Row:
        plain = replace(family, beside="")  # the base run has no model beside it
        value = mean([validated(task, family) for task in own])[0]
        return {"accuracy": value, "base": mean([validated(task, plain) for task in base])[0]}

    def _runs(self, name: str, rate: float) -> list[Task]:
        return [self.tuning(name, rate, deal) for deal in self.deals]

    def _scored(self, family: Family, rates: Sequence[float]) -> list[Score]:
        """The judges' mean score at each of these rates."""
        runs = {r: [t for judge in family.judges for t in self._runs(judge, r)] for r in rates}
        self.workers.finish(task for tasks in runs.values() for task in tasks)
        return [mean([validated(task, family) for task in runs[rate]]) for rate in rates]


def _refused(choice: Row, row: Row) -> str | None:
    """The reason why a method has no result at this rate; none if it has one."""
    if row["accuracy"] <= row["base"]:
        return "is not above the base model on validation"
    return None if choice["inside"] else "the best rate of its family is the last that was tried"
