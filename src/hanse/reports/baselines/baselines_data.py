"""Figures of a baseline comparison for its report, and each client's own score from the runs."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import recorded
from hanse.journal.baselines_records import (
    BASE,
    BASELINES,
    FEDERATED,
    BaselinesRecord,
    Outcome,
    Span,
    SummaryLine,
    read_baselines,
)
from hanse.journal.record_files import RecordError, readable_lines
from hanse.journal.records import ROUNDS, RoundRecord
from hanse.reports import formatting


def read(folder: Path) -> BaselinesRecord:
    """A baseline comparison's figures; raises UserError if they cannot be read."""
    try:
        return read_baselines(folder)
    except RecordError:
        raise UserError(
            f"{folder / BASELINES} cannot be read, so there is no baseline comparison to show; its "
            f"runs, in {folder / 'seed-…'}, can each be shown with `hanse report`."
        ) from None


def span(baselines: BaselinesRecord, line: SummaryLine) -> Span:
    """A line's value with its interval: over seeds, and for the base model over test items."""
    if line.name == BASE and baselines.base is not None and baselines.base.se is not None:
        is_share, error = baselines.metric in formatting.SHARES, baselines.base.se
        interval = recorded(line.value, error, baselines.test_items, is_share)
        return Span(line.value, interval.low, interval.high) if interval else Span(line.value)
    return Span(line.value, line.low, line.high)


def gain(baselines: BaselinesRecord, line: SummaryLine) -> Span:
    """The gain of federated training over a line; above 0 is better for any metric."""
    difference = line.against_federated
    if not baselines.higher_is_better:
        return difference
    if difference.low is None or difference.high is None:
        return Span(-difference.value)
    return Span(-difference.value, -difference.high, -difference.low)


def single_values(baselines: BaselinesRecord, line: SummaryLine) -> list[float]:
    """The values whose mean a line shows: the clients' means over seeds, or the seeds' values."""
    variants = [
        variant for variant in baselines.variants if variant.kind == line.name and variant.seeds
    ]
    if len(variants) > 1:
        return [fmean(outcome.value for outcome in variant.seeds) for variant in variants]
    return [outcome.value for variant in variants for outcome in variant.seeds]


def own_scores(folder: Path, baselines: BaselinesRecord) -> dict[str, tuple[float, float]]:
    """Each client's score on its own held-out rows, alone and federated: means over the seeds."""
    metric = str(baselines.metric)
    federated = {
        outcome.seed: _client_scores(folder / outcome.run, metric)
        for _, outcome in _outcomes(baselines, FEDERATED)
    }
    pairs: dict[str, list[tuple[float, float]]] = {}
    for client, outcome in _outcomes(baselines, "alone"):
        together = federated.get(outcome.seed, {}).get(client)
        if outcome.own is not None and together is not None:
            pairs.setdefault(client, []).append((outcome.own, together))
    return {
        client: (fmean(alone for alone, _ in scores), fmean(both for _, both in scores))
        for client, scores in sorted(pairs.items())
    }


def _outcomes(baselines: BaselinesRecord, kind: str) -> Sequence[tuple[str, Outcome]]:
    """The outcomes of all variants of a kind, each with its variant's client."""
    variants = [variant for variant in baselines.variants if variant.kind == kind]
    return [(str(variant.client), outcome) for variant in variants for outcome in variant.seeds]


def _client_scores(run: Path, metric: str) -> dict[str, float]:
    """The score of each client on its own rows after a run's last round, where it has one."""
    rounds, _ = readable_lines(run / ROUNDS, RoundRecord)
    scores = rounds[-1].client_test if rounds else {}
    return {client: metrics[metric] for client, metrics in scores.items() if metric in metrics}
