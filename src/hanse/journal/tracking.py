"""Trackers: tools that `report_to` names, and that follow a run from its journal alone."""

import importlib.util
import logging
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hanse import atomic_files
from hanse.errors import UserError
from hanse.journal import record_files
from hanse.journal.records import LEDGER, ROUNDS, ClientRecord, Metrics, RoundRecord
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

ID = "tracking-id"  # the file in a run folder that keeps what trackers know the run by
RoundNumbers = tuple[int, Metrics, float]  # the round, its numbers, when it ended

T = TypeVar("T")


@dataclass(frozen=True)
class Tracked:
    """A run as trackers know it.

    id: kept in the run folder, so that a tool finds the run again when it is resumed.
    settings: the resolved experiment by dotted key, such as {"train.learning_rate": 0.001}.
    text: the same as YAML.
    """

    folder: Path
    id: str
    settings: dict[str, Any]
    text: str

    @property
    def name(self) -> str:
        """The name that people see."""
        return self.folder.resolve().name


class Following(ABC):
    """One run, open in one tool.

    last: the newest round that the tool knows from an earlier process; -1 if it knows none.
    """

    last: int = -1

    @abstractmethod
    def log(self, round: int, metrics: Metrics, time: float) -> None:
        """Show the numbers of a round that ended at `time`, in seconds since 1970."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """Note that the run is finished, or was stopped."""


class Tracker(ABC):
    """A tool that shows how runs go: a frozen dataclass whose fields are its settings."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that must be installed, by the names under which Python imports them."""
        return ()

    @abstractmethod
    def open(self, run: Tracked) -> Following:
        """Begin to show a run, or continue one that the tool knows."""


def refuse_missing(trackers: Mapping[str, Tracker]) -> None:
    """Raise UserError if a tracker needs a package that is not installed."""
    for name, tracker in trackers.items():
        for package in tracker.packages:
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"report_to names {name}, for which the package {package} is missing; run "
                    f'pip install "hanse[{name}]", or leave {name} out.'
                )


@contextmanager
def following(trackers: Mapping[str, Tracker], folder: Path) -> Iterator[Callable[[], None]]:
    """Open a run's trackers; the caller calls the yielded function after each round.

    A tracker that fails is dropped with a warning, and the run goes on.
    """
    if not trackers:
        yield lambda: None
        return
    run, news = _tracked(folder), _NewRounds(folder)
    opened: dict[str, Following] = {}
    for name, tracker in trackers.items():
        report(Work(Activity.OPENING_TRACKER, name))
        with _dropped_on_error(name, opened):
            opened[name] = tracker.open(run)

    def log_new_rounds() -> None:
        rounds = news.read()
        for name in list(opened):
            with _dropped_on_error(name, opened):
                _log(opened[name], rounds)

    finished = False
    try:
        yield log_new_rounds
        log_new_rounds()  # of a run that was killed before it could log them
        finished = True
    finally:
        for name in list(opened):
            report(Work(Activity.CLOSING_TRACKER, name))
            with _dropped_on_error(name, opened):
                opened[name].close(finished)


@contextmanager
def _dropped_on_error(name: str, opened: dict[str, Following]) -> Iterator[None]:
    """Drop a tracker if the block fails, with whichever error of the tool."""
    try:
        yield
    except Exception as error:
        log.warning("%s no longer follows this run, which goes on: %s", name, _brief(error))
        opened.pop(name, None)


def _brief(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _log(opened: Following, rounds: list[RoundNumbers]) -> None:
    """Log the rounds that a tool does not know yet."""
    for number, metrics, time in rounds:
        if number > opened.last:
            opened.log(number, metrics, time)


def _tracked(folder: Path) -> Tracked:
    file = folder / ID
    if (name := atomic_files.read(file)) is None:
        atomic_files.write(file, name := uuid.uuid4().hex[:12].encode())
    text = (folder / "experiment.yaml").read_text(encoding="utf-8")
    return Tracked(folder, name.decode().strip(), flat(yaml.safe_load(text)), text)


def flat(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested values by their path; an empty mapping stays a value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            inner = flat(value, separator)
            result |= {f"{name}{separator}{key}": inner[key] for key in inner}
        else:
            result[str(name)] = value
    return result


@dataclass
class _NewRounds:
    """Reads the rounds that the journal has committed since the last look.

    _offsets: bytes that were read so far, by file.
    """

    folder: Path
    _offsets: dict[str, int] = field(default_factory=dict)

    def read(self) -> list[RoundNumbers]:
        """The numbers of each new round."""
        losses: defaultdict[int, Metrics] = defaultdict(dict)
        for reply in self._records(LEDGER, ClientRecord):
            if reply.kind == "train" and reply.loss is not None:
                losses[reply.round][f"clients/{reply.client}/loss"] = reply.loss
        return [
            (record.round, _numbers(record) | losses[record.round], record.time)
            for record in self._records(ROUNDS, RoundRecord)
        ]

    def _records(self, name: str, kind: type[T]) -> list[T]:
        """The new lines of a file."""
        if not (self.folder / name).exists():
            return []
        with (self.folder / name).open("rb") as file:
            file.seek(self._offsets.get(name, 0))
            lines = file.readlines()
            self._offsets[name] = file.tell()
        return [record_files.parse(line, kind) for line in lines]


def _numbers(record: RoundRecord) -> Metrics:
    """All numbers of a round by their path, such as "validation/accuracy"."""
    values = flat(asdict(record), "/")
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and name not in ("round", "time")
    }
