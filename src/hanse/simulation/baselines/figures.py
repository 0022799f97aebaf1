"""The content of baselines.json, read from the folders of its finished runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import paired, standard_error, student
from hanse.experiment.schema import Experiment, build_tasks
from hanse.journal.baselines_records import (
    BASE,
    FEDERATED,
    BaselinesRecord,
    BaseScore,
    Outcome,
    Span,
    SummaryLine,
    VariantRecord,
)
from hanse.journal.record_files import RecordError
from hanse.journal.records import Evaluation
from hanse.journal.round_costs import training_seconds
from hanse.journal.run_folder import read_evaluation, read_ledger, read_rounds
from hanse.simulation.baselines.variants import KINDS, Variant
from hanse.simulation.baselines.verdict import verdict

LOWER_IS_BETTER = ("loss", "perplexity")
WHAT = {BASE: "the model before any training", **KINDS}
ORDER = (BASE, "alone", "alone-longer", FEDERATED, "centralised", "centralised-small-batch")


@dataclass(frozen=True)
class Mean:
    """The means over outcomes."""

    value: float
    steps: float
    examples: float


def figures(
    experiment: Experiment,
    seeds: Sequence[int],
    finished: Sequence[Variant],
    planned: int,
    home: Path,
) -> BaselinesRecord:
    """The content of baselines.json; an unfinished comparison has the figures of its finished runs.

    finished: for each seed the federated variant comes first. planned: number of all variants.
    home: the baseline comparison's folder.
    A score is the mean of the test items' scores; a gain is a score minus the base model's.
    """
    record = BaselinesRecord(
        name=experiment.name,
        clients=len(experiment.client_names),
        rounds=experiment.rounds,
        seeds=tuple(seeds),
        verdict="",
        done=len(finished),
        planned=planned,
    )
    if finished:
        record = _with_scores(record, next(iter(build_tasks(experiment))), finished, home)
    return replace(record, verdict=verdict(record))


def _with_scores(
    record: BaselinesRecord, task: str, finished: Sequence[Variant], home: Path
) -> BaselinesRecord:
    """The record with the figures of all finished variants on a task's test items."""
    federated = [variant for variant in finished if variant.kind == FEDERATED]
    base = {variant.experiment.seed: _evaluation(variant, task, 0) for variant in federated}
    values = {seed: statistics.fmean(scored.items) for seed, scored in base.items()}
    first = base[finished[0].experiment.seed]
    metric = "accuracy" if "accuracy" in first.metrics else next(iter(first.metrics))
    error = standard_error(first.items) if len(first.items) > 1 else None
    variants = _variants(finished, task, metric, base, home)
    return replace(
        record,
        metric=metric,
        higher_is_better=metric not in LOWER_IS_BETTER,
        test_items=len(first.items),
        base=BaseScore(statistics.fmean(values.values()), error),
        variants=variants,
        summary=_summary(variants, values, record.clients),
    )


def _evaluation(variant: Variant, task: str, round: int) -> Evaluation:
    """A run's scores on the test items; raises UserError if they are lost, or cannot be read."""
    try:
        return read_evaluation(variant.folder, f"test-{task}", round)
    except RecordError:
        raise UserError(
            f"the scores of the finished run {variant.folder} are lost or damaged; remove that "
            "folder and `hanse resume` the baseline comparison, which then runs it again."
        ) from None


def _variants(
    finished: Sequence[Variant], task: str, metric: str, base: dict[int, Evaluation], home: Path
) -> tuple[VariantRecord, ...]:
    """Each variant with its outcome by seed."""
    records: dict[str, VariantRecord] = {}
    for variant in finished:
        scored = _evaluation(variant, task, variant.experiment.rounds)
        outcome = _outcome(variant, scored, base[variant.experiment.seed], metric, home)
        record = VariantRecord(variant.name, variant.kind, variant.what, (), variant.client)
        record = records.get(variant.name, record)
        records[variant.name] = replace(record, seeds=(*record.seeds, outcome))
    return tuple(records.values())


def _outcome(
    variant: Variant, scored: Evaluation, base: Evaluation, metric: str, home: Path
) -> Outcome:
    """The scores and costs of one run. Only a federated run sends anything.

    scored, base: the scores of its model and of the base model on the test items.
    """
    _refuse_unlike(variant, scored, base)
    rounds, ledger = read_rounds(variant.folder), read_ledger(variant.folder)
    trained = [reply.numbers for reply in ledger if reply.kind == "train"]
    gain, value = paired(scored.items, base.items), statistics.fmean(scored.items)
    sent = sum(record.bytes.total for record in rounds) if variant.kind == FEDERATED else 0
    return Outcome(
        seed=variant.experiment.seed,
        value=value,
        run=str(variant.folder.relative_to(home)),
        gain=value - statistics.fmean(base.items),
        low=gain.low if gain else None,
        high=gain.high if gain else None,
        steps=round(sum(numbers.get("steps", 0) for numbers in trained)),
        examples=round(sum(numbers.get("examples", 0) for numbers in trained)),
        training_seconds=sum(training_seconds(record.seconds) for record in rounds),
        bytes=sent,
        own=_own(variant, metric),
    )


def _refuse_unlike(variant: Variant, scored: Evaluation, base: Evaluation) -> None:
    """Raise UserError if two versions of hanse measured something else, or other items."""
    if (scored.measured, len(scored.items)) != (base.measured, len(base.items)):
        raise UserError(
            f"{variant.folder} has a {scored.measured} of {len(scored.items):,} test items, and "
            f"the base model a {base.measured} of {len(base.items):,}, so they cannot be paired; "
            f"remove {variant.folder.parent} and `hanse resume` the baseline comparison, which "
            "then runs this seed again."
        )


def _own(variant: Variant, metric: str) -> float | None:
    """The mean score over all rows that the participants hold out for themselves."""
    scores = read_rounds(variant.folder)[-1].client_test
    last = variant.experiment.rounds
    weights = {
        reply.client: reply.weight
        for reply in read_ledger(variant.folder)
        if (reply.round, reply.kind) == (last, "evaluate") and reply.weight
    }
    if not scores or any(metric not in scores[name] for name in weights):
        return None
    total = sum(weights.values())
    return sum(scores[name][metric] * weight for name, weight in weights.items()) / total


def _summary(
    variants: Sequence[VariantRecord], base: dict[int, float], clients: int
) -> tuple[SummaryLine, ...]:
    """One line for each kind of variant: means over seeds, and over the silos of a seed."""
    by_kind = {kind: _by_seed(variants, kind, clients) for kind in KINDS}
    by_kind[BASE] = {seed: Mean(value, 0, 0) for seed, value in base.items()}
    federated = by_kind[FEDERATED]
    return tuple(_line(kind, by_kind[kind], federated) for kind in ORDER if by_kind[kind])


def _by_seed(variants: Sequence[VariantRecord], kind: str, clients: int) -> dict[int, Mean]:
    """The means of a kind's variants by seed, for seeds in which all of them are finished."""
    outcomes: dict[int, list[Outcome]] = {}
    for variant in variants:
        for outcome in variant.seeds if variant.kind == kind else ():
            outcomes.setdefault(outcome.seed, []).append(outcome)
    wanted = clients if kind.startswith("alone") else 1
    return {seed: _mean(runs) for seed, runs in outcomes.items() if len(runs) == wanted}


def _line(kind: str, by_seed: dict[int, Mean], federated: dict[int, Mean]) -> SummaryLine:
    """One kind's means over seeds, and their difference from the federated ones of these seeds."""
    mean = _mean(list(by_seed.values()))
    # The base model does not depend on the seed.
    spread = None if kind == BASE else student([each.value for each in by_seed.values()])
    both = sorted(by_seed.keys() & federated.keys())
    differences = [by_seed[seed].value - federated[seed].value for seed in both]
    interval = student(differences)
    return SummaryLine(
        kind,
        WHAT[kind],
        mean.value,
        mean.steps,
        mean.examples,
        Span(
            statistics.fmean(differences),
            interval.low if interval else None,
            interval.high if interval else None,
        ),
        spread.low if spread else None,
        spread.high if spread else None,
    )


def _mean(outcomes: Sequence[Outcome | Mean]) -> Mean:
    return Mean(
        statistics.fmean(outcome.value for outcome in outcomes),
        statistics.fmean(outcome.steps for outcome in outcomes),
        statistics.fmean(outcome.examples for outcome in outcomes),
    )
