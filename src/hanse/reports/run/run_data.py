"""A run as its folder tells it; a run in progress or a damaged one tells what it can."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hanse.errors import UserError
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.records import (
    DEPLOYED,
    DIVISION,
    ENVIRONMENT,
    LEDGER,
    ROUNDS,
    ClientRecord,
    DivisionRecord,
    EnvironmentRecord,
    Evaluation,
    RoundRecord,
)
from hanse.journal.run_settings import RunSettings, read_settings

_SCORES = re.compile(r"test-(.+)-(\d{5,})\.json")
Tests = dict[str, dict[int, Evaluation]]  # evaluations of the test split by task and round
T = TypeVar("T")


@dataclass(frozen=True)
class RunData:
    """The records of a run folder. missing: what could not be read, one sentence each."""

    folder: Path
    settings: RunSettings
    rounds: tuple[RoundRecord, ...]
    ledger: tuple[ClientRecord, ...]
    tests: Tests
    division: DivisionRecord | None
    environment: EnvironmentRecord
    privacy: PrivacyRecord | None
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name, or else its folder's."""
        return self.settings.name or self.folder.name

    @property
    def base(self) -> str:
        """The base model's name."""
        return self.settings.base_model or "an unknown model"

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return self.settings.algorithm or "an unknown algorithm"

    @property
    def encoded(self) -> str:
        """The codecs and the mechanism of privacy in words; empty without any."""
        compression, mechanism = self.settings.compression, self.settings.mechanism
        phrases = [
            *([f"encoded: {compression}"] if compression else []),
            *([f"mechanism of privacy: {mechanism}"] if mechanism else []),
        ]
        return "; ".join(phrases)

    @property
    def planned(self) -> int | None:
        """The number of rounds that the settings ask for."""
        return self.settings.rounds

    @property
    def done(self) -> int:
        """The last round that is recorded; -1 for none."""
        return self.rounds[-1].round if self.rounds else -1

    @property
    def remote(self) -> bool:
        """True if the clients were silos on other machines."""
        return (self.folder / DEPLOYED).is_file()

    @property
    def finished(self) -> bool:
        """True if all rounds are done."""
        return self.planned is not None and self.done >= self.planned

    def rows(self, split: str) -> int | None:
        """The number of the server's rows in "validation" or "test"; None if it is not known."""
        return getattr(self.division, split) or None if self.division else None


def read(folder: Path) -> RunData:
    """The records of a run folder; raises UserError only if there is no experiment in it."""
    settings = read_settings(folder)
    missing: list[str] = []
    rounds = {record.round: record for record in _lines(folder / ROUNDS, RoundRecord, missing)}
    ledger = _lines(folder / LEDGER, ClientRecord, missing)
    tests = _tests(folder / "scores", missing)
    for number in sorted(number for number, record in rounds.items() if record.test):
        if not list((folder / "scores").glob(f"test-*-{number:05d}.json")):
            missing.append(f"scores/test-…-{number:05d}.json is not there.")
    return RunData(
        folder,
        settings,
        tuple(rounds[number] for number in sorted(rounds)),
        tuple(ledger),
        tests,
        _file(folder / DIVISION, DivisionRecord, missing),
        _file(folder / ENVIRONMENT, EnvironmentRecord, missing) or EnvironmentRecord(),
        _file(folder / PRIVACY, PrivacyRecord, missing) if (folder / PRIVACY).exists() else None,
        tuple(missing),
    )


def _tests(folder: Path, missing: list[str]) -> Tests:
    """The evaluations of the test split in a folder of scores."""
    tests: Tests = {}
    for file in sorted(folder.glob("test-*.json")):
        match = _SCORES.fullmatch(file.name)
        evaluation = _file(file, Evaluation, missing)
        if match and evaluation:
            tests.setdefault(match[1], {})[int(match[2])] = evaluation
    return tests


def _lines(file: Path, kind: type[T], missing: list[str]) -> list[T]:
    """The records of a .jsonl file; `missing` gets a sentence on lines that cannot be read."""
    if not file.is_file():
        missing.append(f"{file.name} is not there.")
        return []
    records, damaged = record_files.readable_lines(file, kind)
    if damaged:
        missing.append(f"{file.name}: {damaged} of its lines cannot be read.")
    return records


def _file(file: Path, kind: type[T], missing: list[str]) -> T | None:
    """The record of a .json file, or None; then `missing` gets a sentence with the reason."""
    try:
        record = record_files.read(file, kind)
    except UserError:
        missing.append(f"{file.name} cannot be read.")
        return None
    if record is None:
        missing.append(f"{file.name} is not there.")
    return record
