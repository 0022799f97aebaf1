"""The run folder: the settings of a run, its measurements, and its state after each round.

experiment.yaml      every choice, resolved; it reproduces the run
machine.json         threads, versions and the data's hash, which resume keeps to
metrics.jsonl        one line a round: losses, scores, seconds, bytes
ledger.jsonl         one line for each client, round and kind of message: its bytes and numbers
releases.jsonl       one line for each result with noise, if a mechanism draws any
row-charges.jsonl    what each round may cost silos' rows, if a mechanism hides them
releases/            the last of these results, which a resumed run uses again
scores/              evaluations item by item, for paired comparisons, and some answers
state/               the last checkpoints; a file's name carries its own hash
summed.json          the clients of each round whose sum was revealed, under secure sums
constants/           untrained tensors of the adapter, if it has any
updates/             decoded updates of single clients, if they are collected
clients/             each simulated client's memory, and its own adapter, if it has one
tracking-id          the name of the run at its trackers, if it has any
deployed-as          the name of the run at its silos, if they are on other machines
log.jsonl            what their server did, line by line, if they are
flower/              Flower's own files and logs, if they are
adapter/             the result, in PEFT's format
models/              the adapters of other models that the server trains
report.html          all of it at a glance
plots/               its plots, as PNG and SVG
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError, explained
from hanse.journal import claims, record_files, updates
from hanse.journal.checkpoints import Checkpoint, checkpoints, read_checkpoint, write_checkpoint
from hanse.journal.claims import Claim
from hanse.journal.ledger import Ledger
from hanse.journal.record_files import RecordError
from hanse.journal.records import (
    ENVIRONMENT,
    LEDGER,
    RELEASES,
    ROUNDS,
    ClientRecord,
    EnvironmentRecord,
    Evaluation,
    ReleaseRecord,
    RoundRecord,
)
from hanse.journal.round_costs import with_training_costs
from hanse.journal.run_settings import read_settings
from hanse.tensors import json_text

log = logging.getLogger(__name__)

_UNKNOWN = EnvironmentRecord()


class Journal:
    """One run's folder, open for writing by one process at a time."""

    def __init__(self, folder: Path, claim: Claim | None = None) -> None:
        """claim: on the folder, if this process has it already."""
        self.folder = folder
        self.ledger = Ledger()
        self._claim = claim or claims.claim(folder)

    @staticmethod
    def create(folder: Path, experiment: str) -> "Journal":
        """A new run folder with its resolved experiment; refuses one that exists."""
        with claims.reserved(lambda number: folder) as claim:
            return Journal.begin(claim, experiment)

    @staticmethod
    def begin(claim: Claim, experiment: str) -> "Journal":
        """The journal of a new run in a folder that was reserved for it."""
        atomic_files.write(claim.folder / "experiment.yaml", experiment.encode())
        return Journal(claim.folder, claim)

    def restore(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; all that was written after it is removed.

        None before the first checkpoint. Raises UserError, and changes nothing, if the system
        refuses to read a file, or if all checkpoints are damaged or lost.
        """
        damaged, checkpoint = [], None
        for file in sorted(checkpoints(self.folder), reverse=True):
            checkpoint = read_checkpoint(file)
            if checkpoint is not None:
                break
            damaged.append(file)
        last = -1 if checkpoint is None else checkpoint.round
        self._refuse_lost(last, damaged)
        for file in damaged:
            log.warning("the checkpoint %s is damaged; the one before it is used", file)
            with explained(file):
                file.unlink(missing_ok=True)
        for name in (ROUNDS, LEDGER):
            self._truncate(self.folder / name, last)
        updates.truncate(self.folder, last)
        return checkpoint

    def commit(self, checkpoint: Checkpoint, record: RoundRecord) -> None:
        """Make a round final: write its lines first, then, in one rename, its checkpoint."""
        clients, seconds = self.ledger.take(checkpoint.round)
        with self.ledger.time("journal"):  # counted with the next round
            means = self._machine(), self._expected_seconds, self.ledger.is_remote
            clients = [with_training_costs(client, *means) for client in clients]
            record = replace(record, seconds={**record.seconds, **seconds})
            lines = b"".join(map(record_files.line, clients))
            atomic_files.append(self.folder / LEDGER, lines)
            atomic_files.append(self.folder / ROUNDS, record_files.line(record))
            write_checkpoint(self.folder, checkpoint)

    def keep(self, name: str, evaluation: Evaluation) -> None:
        """Keep one evaluation whole, such as "test-classification", for paired comparisons."""
        record_files.write(_scores(self.folder, name, evaluation.round), evaluation, indent=None)

    def close(self) -> None:
        """Let other processes open the run."""
        self._claim.close()

    def _machine(self) -> EnvironmentRecord:
        """The machine that the run was begun on; empty if no file says so."""
        with suppress(RecordError):
            return record_files.read(self.folder / ENVIRONMENT, EnvironmentRecord) or _UNKNOWN
        return _UNKNOWN

    @cached_property
    def _expected_seconds(self) -> dict[str, float]:
        """The seconds of each client's training in the run's plan, if it has any."""
        with suppress(UserError):
            return read_settings(self.folder).expected_seconds
        return {}

    def _refuse_lost(self, last: int, damaged: Sequence[Path]) -> None:
        """Raise UserError if all checkpoints are damaged or lost; warn about rounds to repeat.

        last: the round of the newest undamaged one; -1 for none.
        """
        reached = _last_round(self.folder / ROUNDS)
        if last < 0 and (damaged or reached > 0):  # round 0 has its lines before its checkpoint
            raise UserError(
                f"{self.folder / 'state'} has no checkpoint that is whole, though round "
                f"{max(reached, 0)} was reached; bring one back from a copy, or begin a new run in "
                "another output_dir."
            )
        if reached > last + 1:
            log.warning(
                "rounds %d to %d have no whole checkpoint and are done again", last + 1, reached
            )

    def _truncate(self, file: Path, last: int) -> None:
        """Drop the lines of rounds after `last`, and a half-written one."""
        data = atomic_files.read(file) or b""
        kept = b"".join(line for line in data.splitlines(True) if _round_of(line) <= last)
        if kept != data:
            atomic_files.write(file, kept)


def read_rounds(folder: Path) -> list[RoundRecord]:
    """The rounds of a run so far; raises RecordError for a damaged line."""
    return record_files.read_lines(folder / ROUNDS, RoundRecord)


def read_ledger(folder: Path) -> list[ClientRecord]:
    """The requests and replies of a run's rounds so far; raises RecordError for a damaged line."""
    return record_files.read_lines(folder / LEDGER, ClientRecord)


def read_releases(folder: Path) -> list[ReleaseRecord]:
    """The releases of a run so far; raises RecordError for a damaged line."""
    return record_files.read_lines(folder / RELEASES, ReleaseRecord)


def read_evaluation(folder: Path, name: str, round: int) -> Evaluation:
    """One evaluation as `Journal.keep` wrote it; raises RecordError if it is gone or damaged."""
    file = _scores(folder, name, round)
    if (evaluation := record_files.read(file, Evaluation)) is None:
        raise RecordError(f"there are no scores in {file}; bring it back from a copy.")
    return evaluation


def _scores(folder: Path, name: str, round: int) -> Path:
    """The file of one evaluation."""
    return folder / "scores" / f"{name}-{round:05d}.json"


def _last_round(file: Path) -> int:
    """The last round of which a file has a whole line; -1 if it has none."""
    rounds = map(_round_of, (atomic_files.read(file) or b"").splitlines(True))
    return max((number for number in rounds if number < sys.maxsize), default=-1)


def _round_of(line: bytes) -> int:
    """The round of a line; beyond all rounds if the line is not whole."""
    try:
        return int(json_text.parse(line)["round"]) if line.endswith(b"\n") else sys.maxsize
    except (ValueError, LookupError, TypeError, OverflowError):
        return sys.maxsize
