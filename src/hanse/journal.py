"""The run folder: what was chosen, what was measured, and the state after each round.

experiment.yaml      every choice, resolved; it reproduces the run
machine.json         threads, versions and the data's hash, which resume keeps to
metrics.jsonl        one line a round: losses, scores, seconds, bytes
ledger.jsonl         one line for each client, round and kind of message: its bytes and numbers
scores/              per-item scores of the test sets, for paired comparisons; some answers
state/               the last checkpoints; a file's name carries its own hash
constants/           what the adapter has beside its trained tensors, if anything
clients/             each simulated client's memory
tracking-id          what trackers know the run by, if it has any
deployed-as          what silos know the run by, if they are on other machines
flower/              Flower's own files and logs, if they are
adapter/             the result, in PEFT's format
report.html          all of it at a glance
plots/               its plots, as PNG and SVG
"""

import fcntl
import hashlib
import json
import logging
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hanse import storage
from hanse.errors import UserError
from hanse.messages import Groups, MessageError, Numbers, pack, unpack
from hanse.tensors import below

log = logging.getLogger(__name__)

DEPLOYED = "deployed-as"
KEPT = 2  # checkpoints: the newest, and the one before it in case that one is damaged
_CHECKPOINT = re.compile(r"(\d{5,})-([0-9a-f]{64})\.safetensors")
_COLUMNS = {"round", "client", "kind", "down", "up", "error"}  # not a client's to fill in

Row = dict[str, Any]


class Ledger:
    """Bytes and seconds of the round in progress, as they are spent."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._last: dict[tuple[str, str], Row] = {}  # by client and kind
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def sent(self, client: str, kind: str, size: int) -> None:
        """A request of `size` bytes went out to a client."""
        row: Row = {"client": client, "kind": kind, "down": size, "up": 0}
        self.rows.append(row)
        self._last[client, kind] = row

    def received(
        self, client: str, kind: str, size: int, numbers: Numbers, error: str = ""
    ) -> None:
        """The reply to the last such request came in, with what the client reports."""
        row = self._last[client, kind]
        row["up"] += size
        row.update({name: v for name, v in numbers.items() if name not in _COLUMNS})
        if error:
            row["error"] = error

    def refused(self, client: str, kind: str, of: int, size: int) -> None:
        """An answer to a request of round `of` came too late, or came again."""
        row = {"client": client, "kind": kind, "down": 0, "up": 0, "late": of, "unused": size}
        self.rows.append(row)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Count the seconds of a block under `what`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start

    def total(self, name: str, kind: str | None = None) -> float:
        """The sum of one number over the rows (of one kind)."""
        return float(sum(r.get(name, 0) for r in self.rows if kind in (None, r["kind"])))

    def take(self) -> tuple[list[Row], dict[str, float]]:
        """The rows and seconds so far; the ledger starts afresh."""
        taken = self.rows, dict(self.seconds)
        self.rows, self._last, self.seconds = [], {}, defaultdict(float)
        return taken


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round: the server's tensors by group, and whose memory is of which.

    constants: the hash of the adapter's constants; empty if it has none. holding: who has them.
    """

    round: int
    groups: Groups
    counted: dict[str, int] = field(default_factory=dict)
    constants: str = ""
    holding: frozenset[str] = frozenset()


class Journal:
    """One run's folder, open for writing by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger()
        self._lock = self._locked()

    @staticmethod
    def create(folder: Path, experiment: str) -> "Journal":
        """A new run folder with its resolved experiment; refuses one that exists."""
        refuse_taken(folder)
        with storage.folder(folder) as aside:  # never a run folder without its experiment
            (aside / "experiment.yaml").write_text(experiment, encoding="utf-8")
        return Journal(folder)

    def restore(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; what was written after it is taken back."""
        checkpoint = None
        for file in sorted(checkpoints(self.folder), reverse=True):
            checkpoint = _read(file)
            if checkpoint is not None:
                break
            log.warning("the checkpoint %s is damaged; the one before it is used", file)
            with storage.explained(file):
                file.unlink()
        last = -1 if checkpoint is None else checkpoint.round
        for name in ("metrics.jsonl", "ledger.jsonl"):
            self._truncate(self.folder / name, last)
        return checkpoint

    def commit(self, checkpoint: Checkpoint, record: Row) -> None:
        """Make a round final: its lines first, then, in one rename, its checkpoint."""
        rows, seconds = self.ledger.take()
        with self.ledger.time("journal"):  # counted with the next round
            record = {**record, "seconds": {**record.get("seconds", {}), **seconds}}
            lines = "".join(json.dumps({"round": checkpoint.round, **row}) + "\n" for row in rows)
            storage.append(self.folder / "ledger.jsonl", lines.encode())
            storage.append(self.folder / "metrics.jsonl", (json.dumps(record) + "\n").encode())
            numbers = {"round": checkpoint.round}
            numbers |= {f"counted/{name}": at for name, at in checkpoint.counted.items()}
            numbers |= {f"holding/{name}": 1 for name in sorted(checkpoint.holding)}
            header = {"message": "checkpoint", "kind": "state", "constants": checkpoint.constants}
            data = pack(header, numbers, checkpoint.groups)
            digest = hashlib.sha256(data).hexdigest()
            home = self.folder / "state"
            storage.write(home / f"{checkpoint.round:05d}-{digest}.safetensors", data)
            for old in sorted(checkpoints(self.folder))[:-KEPT]:
                old.unlink()

    def scores(
        self,
        name: str,
        round: int,
        metrics: Mapping[str, float],
        items: Sequence[float],
        samples: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Keep one evaluation whole, so that two of them can be compared item by item.

        samples: what was asked, the answer in the data, and what the model said.
        """
        scores = {"round": round, "metrics": metrics, "items": items, "samples": samples}
        content = json.dumps(scores).encode()
        storage.write(self.folder / "scores" / f"{name}-{round:05d}.json", content)

    def close(self) -> None:
        """Let other processes open the run."""
        self._lock.close()

    def _locked(self) -> IO[bytes]:
        try:
            handle = (self.folder / ".lock").open("wb")
        except OSError as error:
            raise UserError(
                f"{self.folder} is no run folder that can be written: {error}."
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise UserError(f"another process is working on {self.folder}; wait for it.") from None
        return handle

    def _truncate(self, file: Path, last: int) -> None:
        """Drop the lines of rounds after `last`, and a half-written one."""
        if not file.exists():
            return
        data = file.read_bytes()
        kept = b"".join(line for line in data.splitlines(True) if _round_of(line) <= last)
        if kept != data:
            storage.write(file, kept)


def refuse_taken(folder: Path) -> None:
    """Raise UserError if an output folder exists."""
    if folder.exists():
        run = any((folder / name).is_file() for name in ("experiment.yaml", "ladder.yaml"))
        other = f", or continue that run with `hanse resume {folder}`" if run else ""
        raise UserError(f"{folder} exists; choose another output_dir{other}.")


def records(folder: Path, name: str = "metrics") -> list[Row]:
    """The lines of a run's metrics (or ledger), those that are whole."""
    file = folder / f"{name}.jsonl"
    lines = file.read_bytes().splitlines(True) if file.exists() else []
    return [json.loads(line) for line in lines if _round_of(line) < sys.maxsize]


def read_scores(folder: Path, name: str, round: int) -> Row:
    """One evaluation as `Journal.scores` kept it; raises FileNotFoundError if there is none."""
    content: Row = json.loads((folder / "scores" / f"{name}-{round:05d}.json").read_text())
    return content


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run."""
    home = folder / "state"
    return [p for p in home.iterdir() if _CHECKPOINT.fullmatch(p.name)] if home.is_dir() else []


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, which may be in progress; nothing is changed."""
    found = (_read(file) for file in sorted(checkpoints(folder), reverse=True))
    return next((checkpoint for checkpoint in found if checkpoint is not None), None)


def peak_memory() -> int:
    """The most bytes of memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(file: Path) -> Checkpoint | None:
    """A checkpoint, or None if its content is not what its name's hash says."""
    match = _CHECKPOINT.fullmatch(file.name)
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if match is None or hashlib.sha256(data).hexdigest() != match[2]:
        return None
    try:
        header, numbers, groups = unpack(data, "checkpoint")
    except MessageError:
        return None
    counted = {name: int(value) for name, value in below(numbers, "counted/").items()}
    known = header.get("constants", ""), frozenset(below(numbers, "holding/"))
    return Checkpoint(int(numbers["round"]), groups, counted, *known)


def _round_of(line: bytes) -> int:
    """The round of a line; beyond all rounds if the line is not whole."""
    try:
        return int(json.loads(line)["round"]) if line.endswith(b"\n") else sys.maxsize
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return sys.maxsize
