"""The result of a run in one sentence with its interval, and a remark where it needs one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from hanse.evaluation.metrics.confidence import paired
from hanse.journal.records import Evaluation
from hanse.reports import formatting
from hanse.reports.run.quality_plots import metric
from hanse.reports.run.run_data import RunData

NO_SPREAD = "Without a spread there is no interval."


@dataclass(frozen=True)
class Headline:
    """The scores before and after, if there are two, the sentence about them, and a remark."""

    sentence: str
    remark: str = ""
    before: str = ""
    after: str = ""


def headline(run: RunData) -> Headline:
    """The first sentence of a run's report."""
    tests = {row.round: row.test for row in run.rounds if row.test}
    rounds = list(tests)
    first = next(iter(tests[rounds[-1]])) if rounds else ""  # of the first task
    for scored in sorted(run.tests.values(), key=lambda by_round: not _has(by_round, first)):
        if len(rounds) > 1 and rounds[0] in scored and rounds[-1] in scored:
            return _gained(scored[rounds[0]], scored[rounds[-1]])
    validated = [row.validation for row in run.rounds if row.validation]
    name = metric(run)
    if rounds and rounds[-1] > 0:  # only the last round's model was scored
        value = formatting.score(tests[rounds[-1]][first], first)
        return Headline(f"Test {formatting.label(first)} after training: {value}.")
    if not validated:
        return Headline(f"Nothing has been scored{' since training began' if rounds else ''}.")
    first, last = (formatting.score(scores[name], name) for scores in (validated[0], validated[-1]))
    sentence = f"Validation {formatting.label(name)}: {first} at first, {last} at last."
    remark = "The test split was not scored before and after, so there is no interval."
    return Headline(sentence, remark)


def _has(scored: Mapping[int, Evaluation], name: str) -> bool:
    return any(name in evaluation.metrics for evaluation in scored.values())


def _gained(before: Evaluation, after: Evaluation) -> Headline:
    old, new = before.items, after.items
    if len(old) != len(new) or len(old) < 2 or not all(map(math.isfinite, old + new)):
        return Headline("The test scores cannot be compared: one item alone, or values not finite.")
    name, gain = after.measured, paired(new, old)
    if name != before.measured:
        return Headline("The test scores cannot be compared: two versions of hanse computed them.")
    mean, last = fmean(old), fmean(new)
    change = last - mean
    verb = "rose" if change > 0 else "fell" if change < 0 else "went"
    what = formatting.label(name).capitalize()
    old_score, new_score = formatting.score(mean, name), formatting.score(last, name)
    sentence = f"{what} on {len(old):,} held-out examples {verb} from {old_score} to {new_score}"
    if gain is None:
        same = "every example changed by the same amount" if new != old else "no example changed"
        return Headline(f"{sentence}; {same}.", NO_SPREAD, old_score, new_score)
    bounds = formatting.interval(gain.low, gain.high, name)
    sentence += f": {formatting.change(change, name)}, 95 % interval {bounds}, paired."
    remark = ""
    if gain.low <= 0 <= gain.high:
        remark = "This run shows no clear change: the interval includes 0."
    elif (change > 0) == formatting.lower_is_better(name):
        remark = "The model is worse than before training."
    return Headline(sentence, remark, old_score, new_score)
