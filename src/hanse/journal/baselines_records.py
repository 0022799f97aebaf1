"""The figures of a baseline comparison as frozen dataclasses, with the keys of baselines.json."""

from dataclasses import dataclass
from pathlib import Path

from hanse.journal import record_files
from hanse.journal.record_files import RecordError

BASELINES = "baselines.json"  # a BaselinesRecord
FEDERATED, BASE = "federated", "base"  # names of two lines of the summary


@dataclass(frozen=True)
class Span:
    """A value with its 95 % interval; without bounds if there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BaseScore:
    """The base model's score on the test items, and its standard error."""

    value: float
    se: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A variant with one seed.

    run: its folder, below the folder of the baselines. own: the score on the clients' own rows.
    gain, low, high: against the base model, paired by test item.
    steps, examples, training_seconds, bytes: what the run took.
    """

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
class VariantRecord:
    """One way of training with the outcome of each seed.

    kind: the line of the summary to which it belongs. client: who trains alone; None of all others.
    """

    name: str
    kind: str
    what: str
    seeds: tuple[Outcome, ...]
    client: str | None = None


@dataclass(frozen=True)
class SummaryLine:
    """One kind of variant: its means over seeds, and its mean minus the federated one."""

    name: str
    what: str
    value: float
    steps: float
    examples: float
    against_federated: Span
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BaselinesRecord:
    """All of baselines.json. done, planned: the number of finished runs, and of all."""

    name: str
    clients: int
    rounds: int
    seeds: tuple[int, ...]
    verdict: str
    metric: str | None = None
    higher_is_better: bool = True
    test_items: int = 0
    base: BaseScore | None = None
    variants: tuple[VariantRecord, ...] = ()
    summary: tuple[SummaryLine, ...] = ()
    done: int | None = None
    planned: int | None = None

    @property
    def finished(self) -> bool:
        """True if every run has ended."""
        return self.done is None or self.planned is None or self.done >= self.planned

    def line(self, name: str) -> SummaryLine | None:
        """The line of the summary with a name; None if no run of its kind is finished."""
        return next((line for line in self.summary if line.name == name), None)


def read_baselines(folder: Path) -> BaselinesRecord:
    """The figures in a folder of baselines; raises RecordError if they are gone or damaged."""
    if (record := record_files.read(folder / BASELINES, BaselinesRecord)) is None:
        raise RecordError(f"{folder / BASELINES} is missing; bring it back from a copy.")
    return record
