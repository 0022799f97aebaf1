"""What a run folder tells, read so that a run in progress or a damaged one tells what it can."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from hanse.journal import yaml_text
from hanse.journal.run_folder import records

_SCORES = re.compile(r"test-(.+)-(\d{5,})\.json")
Metrics = dict[str, float]
Amount = Annotated[float, Field(ge=0, le=1e30)]  # what is measured; a score may be anything
Number = Annotated[int, Field(ge=0, le=10**9)]  # of a round
Moment = Annotated[float, Field(ge=0, le=1e11)]  # seconds since 1970
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """Bytes to the clients and from them."""

    down: Amount
    up: Amount


@dataclass(frozen=True)
class Round:
    """One line of metrics.jsonl. peak_memory: bytes; gpu_use: the share of time it was at work."""

    round: Number
    bytes: Sizes
    seconds: dict[str, Amount]
    time: Moment = 0.0
    tokens_per_second: Amount = 0.0
    peak_memory: Amount = 0.0
    gpu_memory: Amount = 0.0
    gpu_use: Amount | None = None
    train: Metrics = field(default_factory=dict)
    validation: Metrics = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    client_test: dict[str, Metrics] = field(default_factory=dict)
    clients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """One line of ledger.jsonl: a request to one client, and its answer."""

    round: Number
    client: str
    kind: str
    down: Amount = 0.0
    up: Amount = 0.0
    loss: float | None = None
    tokens: Amount = 0.0
    weight: Amount | None = None
    error: str = ""


@dataclass(frozen=True)
class Said:
    """One example of a generation task: what was asked, what the data say, what the model said."""

    prompt: str
    answer: str
    said: str


@dataclass(frozen=True)
class Scored:
    """One evaluation of a test split, item by item."""

    metrics: Metrics
    items: tuple[float, ...]
    samples: tuple[Said, ...] = ()


@dataclass(frozen=True)
class Fraction:
    """One client's rows: those it trains on by label (or all as "rows"), and those it holds out."""

    train: dict[str, NonNegativeInt]
    held: int = 0


@dataclass(frozen=True)
class Division:
    """division.json: which rows lie where."""

    labels: tuple[str, ...]
    clients: dict[str, Fraction]
    validation: int = 0
    test: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speed:
    """What machine.json says of speed, and the hash of the data; None where it says nothing."""

    peak_flops: Amount | None = None
    train_flops_per_token: Amount | None = None
    forward_flops_per_token: Amount | None = None
    data: str | None = None


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it. `missing`: what could not be read, one sentence each.

    tests: by task, then by round.
    """

    folder: Path
    values: dict[str, Any]
    settings: str
    rounds: tuple[Round, ...]
    ledger: tuple[Message, ...]
    tests: dict[str, dict[int, Scored]]
    division: Division | None
    machine: Speed
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.values.get("name") or self.folder.name)

    @property
    def base(self) -> str:
        """The base model's name."""
        model = self.values.get("model")
        name = model.get("model_name_or_path") if isinstance(model, dict) else None
        return str(name or "an unknown model")

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        spec = self.values.get("algorithm", "an unknown algorithm")
        return ", ".join(map(str, spec)) if isinstance(spec, dict) else str(spec)

    @property
    def planned(self) -> int | None:
        """How many rounds were asked for."""
        rounds = self.values.get("rounds")
        return rounds if isinstance(rounds, int) else None

    @property
    def done(self) -> int:
        """The last round there is; -1 for none."""
        return self.rounds[-1].round if self.rounds else -1

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self.planned is not None and self.done >= self.planned


def read(folder: Path) -> Record:
    """What is in a run folder; raises UserError only if there is no experiment in it."""
    values, text = yaml_text.read(folder / "experiment.yaml")
    missing: list[str] = []
    rounds = {row.round: row for row in _lines(folder, "metrics", Round, missing)}
    ledger = _lines(folder, "ledger", Message, missing)
    tests: dict[str, dict[int, Scored]] = {}
    for file in sorted((folder / "scores").glob("test-*.json")):
        match = _SCORES.fullmatch(file.name)
        scored = _file(file, Scored, missing)
        if match and scored:
            tests.setdefault(match[1], {})[int(match[2])] = scored
    for number in sorted(number for number, row in rounds.items() if row.test):
        if not list((folder / "scores").glob(f"test-*-{number:05d}.json")):
            missing.append(f"scores/test-…-{number:05d}.json is not there.")
    return Record(
        folder,
        values,
        text,
        tuple(rounds[number] for number in sorted(rounds)),
        tuple(ledger),
        tests,
        _file(folder / "division.json", Division, missing),
        _file(folder / "machine.json", Speed, missing) or Speed(),
        tuple(missing),
    )


def _lines(folder: Path, name: str, kind: type[T], missing: list[str]) -> list[T]:
    """The lines of a .jsonl that are whole; what is wrong with the others goes into `missing`."""
    file = folder / f"{name}.jsonl"
    if not file.is_file():
        missing.append(f"{file.name} is not there.")
        return []
    found = list(valid(records(folder, name), kind))
    if lost := len(file.read_bytes().splitlines()) - len(found):
        missing.append(f"{file.name}: {lost} of its lines cannot be read.")
    return found


def valid(rows: Iterable[Any], kind: type[T]) -> Iterator[T]:
    """Those of the rows that have what their kind must have."""
    adapter = TypeAdapter(kind)
    for row in rows:
        try:
            yield adapter.validate_python(row)
        except ValidationError:
            continue


def _file(file: Path, kind: type[T], missing: list[str]) -> T | None:
    """What a JSON file says, or None; then `missing` tells why."""
    try:
        return TypeAdapter(kind).validate_python(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        missing.append(f"{file.name} is not there.")
    except (OSError, ValueError, RecursionError):  # pydantic's error is a ValueError
        missing.append(f"{file.name} cannot be read.")
    return None
