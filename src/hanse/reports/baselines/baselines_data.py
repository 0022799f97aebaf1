"""Figures of a baseline comparison: baselines.json, and each client's own score from the runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import Z95
from hanse.journal.run_folder import records
from hanse.reports.run.run_data import Round, valid

FILE = "baselines.json"


@dataclass(frozen=True)
class Span:
    """A value with its 95 % interval, if there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Base:
    """The base model's score on the test items, and its standard error."""

    value: float
    se: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A variant with one seed. gain, low, high: against the base model, paired by test item."""

    seed: int
    value: float
    run: str
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    steps: float = 0.0
    examples: float = 0.0
    training_seconds: float = 0.0
    bytes: float = 0.0
    own: float | None = None


@dataclass(frozen=True)
class Variant:
    """One way of training, with each seed; client: who trains alone."""

    name: str
    what: str
    seeds: tuple[Outcome, ...]
    client: str | None = None

    @property
    def kind(self) -> str:
        """The line of the summary to which it belongs."""
        if self.client is None:
            return self.name
        return "alone" + self.name.removeprefix(f"alone-{self.client}")


@dataclass(frozen=True)
class Line:
    """A kind of variant: its mean over seeds, and that minus the federated mean."""

    name: str
    what: str
    value: float
    steps: float
    examples: float
    against_federated: Span
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Baselines:
    """baselines.json; done and planned count the runs."""

    name: str
    clients: int
    rounds: int
    seeds: tuple[int, ...]
    verdict: str
    metric: str | None = None
    higher_is_better: bool = True
    test_items: int = 0
    base: Base | None = None
    variants: tuple[Variant, ...] = ()
    summary: tuple[Line, ...] = ()
    done: int | None = None
    planned: int | None = None

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return self.done is None or self.planned is None or self.done >= self.planned

    def span(self, line: Line) -> Span:
        """A line's value with its interval: over seeds, for the base model over test items."""
        if line.name == "base" and self.base is not None and self.base.se is not None:
            half = Z95 * self.base.se
            return Span(line.value, line.value - half, line.value + half)
        return Span(line.value, line.low, line.high)

    def gain(self, line: Line) -> Span:
        """How much better federated training is than a line; above 0 is better for any metric."""
        found = line.against_federated
        if not self.higher_is_better or found.low is None or found.high is None:
            sign = -1 if self.higher_is_better else 1
            return Span(sign * found.value, found.low, found.high)
        return Span(-found.value, -found.high, -found.low)

    def each(self, line: Line) -> list[float]:
        """What a line is a mean of: the clients' means over seeds, or else the seeds' values."""
        variants = [
            variant for variant in self.variants if variant.kind == line.name and variant.seeds
        ]
        if len(variants) > 1:
            return [fmean(outcome.value for outcome in variant.seeds) for variant in variants]
        return [outcome.value for variant in variants for outcome in variant.seeds]


def read(folder: Path) -> Baselines:
    """A baseline comparison's figures; raises UserError if they cannot be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return TypeAdapter(Baselines).validate_python(content)
    except (OSError, ValueError, RecursionError):
        raise UserError(
            f"{folder / FILE} cannot be read, so there is no baseline comparison to show; its "
            f"runs, in {folder / 'seed-…'}, can each be shown with `hanse report`."
        ) from None


def own_scores(folder: Path, baselines: Baselines) -> dict[str, tuple[float, float]]:
    """Each client's score on its own held-out rows, alone and federated: means over the seeds."""
    federated: dict[int, dict[str, float]] = {}
    for variant in baselines.variants:
        for outcome in variant.seeds if variant.kind == "federated" else ():
            rounds = list(valid(records(folder / outcome.run), Round))
            scored = rounds[-1].client_test if rounds else {}
            found = {name: scores.get(str(baselines.metric)) for name, scores in scored.items()}
            federated[outcome.seed] = {n: value for n, value in found.items() if value is not None}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for variant in baselines.variants:
        for outcome in variant.seeds if variant.kind == "alone" else ():
            there = federated.get(outcome.seed, {}).get(str(variant.client))
            if outcome.own is not None and there is not None:
                pairs.setdefault(str(variant.client), []).append((outcome.own, there))
    return {
        client: (fmean(alone for alone, _ in some), fmean(both for _, both in some))
        for client, some in sorted(pairs.items())
    }
