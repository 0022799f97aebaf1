"""The choice of a search, and how far its evidence goes."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import special

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import Interval
from hanse.planning.search import halving
from hanse.planning.search.trial import SiloScore

if TYPE_CHECKING:
    from hanse.planning.search.search import Search
    from hanse.planning.search.study import Trial

PERFECT = 1.0  # of all metrics of which more is better
MANY = 3  # trials with one score, at least, that are a sign of nothing learned


@dataclass(frozen=True)
class Winner:
    """The best trial of the last rung, and the second one; None if no other has all rounds."""

    trial: "Trial"
    rival: "Trial | None"
    lead: Interval | None

    @property
    def is_clear(self) -> bool:
        """True if the interval of the difference does not contain 0."""
        return self.lead is not None and (self.lead.low > 0 or self.lead.high < 0)


def winner(search: "Search") -> Winner:
    """The best trial; raises UserError if none could be trained to the end."""
    last = search.rungs[-1]
    scores = {own.number: own.score(last) for own in search.trials if last in own.scores}
    if not scores:
        failed = next((own.reason for own in search.trials if own.reason), "all were stopped")
        raise UserError(f"no trial of {search.folder} has all {last} rounds: {failed}")
    first, *others = halving.ranked(scores, search.lower)
    by_number = {own.number: own for own in search.trials}
    if not others:
        return Winner(by_number[first], None, None)
    best, rival = by_number[first], by_number[others[0]]
    return Winner(best, rival, difference(best.scores[last], rival.scores[last]))


def difference(scores: Mapping[str, SiloScore], others: Mapping[str, SiloScore]) -> Interval | None:
    """The mean difference of two trials' scores, paired by silo, with its 95 % interval.

    Only means of silos are known, so silos are the units: the mean is weighted by their rows wₖ,
    its variance is K/(K − 1)·Σ wₖ²(dₖ − d)² (clusters, Cochran 1977, section 9A), and the interval
    is Student's with K − 1 degrees of freedom. None for fewer than two silos, or if all differ by
    the same, which says nothing about chance.
    """
    names = scores.keys() & others.keys()
    total = sum(scores[name].rows for name in names)
    pairs = [(scores[n].rows / total, scores[n].value - others[n].value) for n in sorted(names)]
    value, count = sum(weight * change for weight, change in pairs), len(pairs)
    variance = sum((weight * (change - value)) ** 2 for weight, change in pairs)
    if count < 2 or not variance:
        return None
    half = math.sqrt(variance * count / (count - 1)) * float(special.stdtrit(count - 1, 0.975))
    return Interval(value, value - half, value + half)


def evidence(search: "Search", best: Winner) -> Iterator[str]:
    """Sentences on the choice, on its lead, and on what the search does not know."""
    last, trial = search.rungs[-1], best.trial
    rows = sum(own.rows for own in trial.scores[last].values())
    yield (
        f"trial {trial.number + 1} ({trial.setting}) has the best {search.metric} after round "
        f"{last}, {trial.mean(last):.4g}, on {rows:,.0f} rows that {len(trial.scores[last])} silos "
        "hold out; only scores have left them"
    )
    if best.rival and best.rival.mean(last) == trial.mean(last):
        yield "of equal scores the smaller loss decides"
    yield from _lead(best)
    yield from _edge(search, trial)
    yield from _too_early(search)
    own = next((one for one in search.trials if one.setting.own), None)
    if own is not None and own.number != trial.number:
        yield f"the file's own settings are trial {own.number + 1}, {_fate(search, own)}"
    yield (
        f"the best of {len(search.trials)} scores is a lucky one: measure the choice on rows that "
        "took no part in it, the server's test rows (data.test)"
    )
    if last != search.experiment.rounds:
        yield (
            f"trials had {last} rounds at most, and the file has {search.experiment.rounds}; the "
            "best rate may be another there"
        )


def _lead(best: Winner) -> Iterator[str]:
    """A sentence on whether the lead may be chance."""
    if best.rival is None:
        yield "no other trial has as many rounds, so its lead cannot be judged"
        return
    name = f"trial {best.rival.number + 1} ({best.rival.setting})"
    if best.lead is None:
        yield (
            f"{name} is next; whether the difference is chance cannot be judged from these silos' "
            "scores, so take the cheaper of both"
        )
        return
    interval = (
        f"{best.lead.value:+.4g}, 95 % interval {best.lead.low:+.4g} to {best.lead.high:+.4g}"
    )
    verdict = (
        "which is more than chance between silos"
        if best.is_clear
        else "which is within the noise, so take the cheaper of both"
    )
    yield f"against {name} it has {interval} (paired by silo), {verdict}"


def _edge(search: "Search", trial: "Trial") -> Iterator[str]:
    """A warning if the best rate is the smallest or the largest that its adapter had."""
    kind, rate = trial.setting.adapter.label, trial.setting.rate
    tried = sorted({t.setting.rate for t in search.trials if t.setting.adapter.label == kind})
    if rate not in (tried[0], tried[-1]):
        return
    if len(tried) == 1:
        yield f"{rate:g} is the only learning rate that was tried with {kind}; try others (--rates)"
        return
    side = "largest" if rate == tried[-1] else "smallest"
    further = "larger" if rate == tried[-1] else "smaller"
    yield (
        f"warning: {rate:g} is the {side} learning rate that was tried with {kind}, so a {further} "
        "one may be better; try some by --rates"
    )


def _too_early(search: "Search") -> Iterator[str]:
    """A warning for the first rung, if many of its trials have one score that can be better."""
    rung = search.rungs[0]
    scores = Counter(own.mean(rung) for own in search.trials if rung in own.scores)
    for score, count in scores.most_common(1):
        is_perfect = not search.lower and score == PERFECT
        if count >= max(MANY, scores.total() / 4) and len(search.rungs) > 1 and not is_perfect:
            yield (
                f"warning: {count} of {scores.total()} trials have the same {search.metric} after "
                f"round {rung}, {score:.4g}, as if they had learned nothing yet; good ones may "
                "have been stopped by chance, so give trials more rounds, or more steps in a round"
            )


def _fate(search: "Search", trial: "Trial") -> str:
    """The end of a trial in words."""
    if trial.state == "fail":
        return f"which failed: {trial.reason}"
    score = f"with {search.metric} {trial.mean(trial.rounds):.4g} after round {trial.rounds}"
    return f"{score}, and was stopped then" if trial.state == "pruned" else score
