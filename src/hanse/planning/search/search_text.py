"""The trials of a search as a table of plain text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hanse.planning.search import halving
from hanse.planning.search.winner import Winner, evidence

if TYPE_CHECKING:
    from hanse.planning.search.search import Search
    from hanse.planning.search.study import Trial


def lines(search: "Search", best: Winner) -> Iterator[str]:
    """Title, table, and sentences; trials with the most rounds and the best scores come first."""
    rungs = list(search.rungs)
    direction = "smaller is better" if search.lower else "larger is better"
    yield f"{search.metric} on the silos' held-out rows after rounds; {direction}"
    rows = [
        ["trial", "adapter", "algorithm", "rate", *(f"{rung}" for rung in rungs), "end"],
        *(_row(search, trial, best) for trial in _ordered(search)),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def text(search: "Search", best: Winner) -> str:
    """The whole page: the table, the evidence and the remarks."""
    notes = [f"note: {sentence}" for sentence in sentences(search, best)]
    return "\n".join([*lines(search, best), "", *notes, ""])


def sentences(search: "Search", best: Winner) -> list[str]:
    """The evidence, and remarks on what was left out."""
    return [*evidence(search, best), *search.remarks]


def _ordered(search: "Search") -> "list[Trial]":
    """The trials with the most rounds first, and among those the best one."""
    found: list[Trial] = []
    for rung in (*reversed(search.rungs), 0):
        own = {t.number: t for t in search.trials if t.rounds == rung}
        scores = {number: t.score(rung) if rung else (0.0, 0.0) for number, t in own.items()}
        found += [own[number] for number in halving.ranked(scores, search.lower)]
    return found


def _row(search: "Search", trial: "Trial", best: Winner) -> list[str]:
    setting, values = trial.setting, [trial.mean(rung) for rung in search.rungs]
    return [
        f"{trial.number + 1}",
        setting.adapter.label,
        setting.algorithm.label,
        f"{setting.rate:g}",
        *("" if value is None else f"{value:.4f}" for value in values),
        _end(search, trial, best),
    ]


def _end(search: "Search", trial: "Trial", best: Winner) -> str:
    """The end of a trial in a few words."""
    if trial.number == best.trial.number:
        return "chosen"
    if trial.state == "fail":
        return f"failed: {trial.reason}"
    if trial.state == "complete":
        return "all rounds"
    rung = trial.rounds
    scores = {own.number: own.score(rung) for own in search.trials if rung in own.scores}
    place = 1 + halving.ranked(scores, search.lower).index(trial.number)
    return f"stopped: place {place} of {len(scores)}, {halving.kept(len(scores))} went on"
