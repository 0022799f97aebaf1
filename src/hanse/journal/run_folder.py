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
log.jsonl            what their server did, line by line, if they are
flower/              Flower's own files and logs, if they are
adapter/             the result, in PEFT's format
report.html          all of it at a glance
plots/               its plots, as PNG and SVG
"""

import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.journal import claims
from hanse.journal.checkpoints import KEPT, Checkpoint, checkpoints, read_checkpoint
from hanse.journal.claims import Claim
from hanse.journal.ledger import Ledger, Row
from hanse.tensors.serialization import pack

log = logging.getLogger(__name__)

DEPLOYED = "deployed-as"


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
        """The newest checkpoint that is whole; what was written after it is taken back.

        None if the run has not got as far as its first one. Raises UserError, and changes nothing,
        if the system refuses to read a file, or if there were checkpoints and none is whole.
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
            with atomic_files.explained(file):
                file.unlink(missing_ok=True)
        for name in ("metrics.jsonl", "ledger.jsonl"):
            self._truncate(self.folder / name, last)
        return checkpoint

    def commit(self, checkpoint: Checkpoint, record: Row) -> None:
        """Make a round final: its lines first, then, in one rename, its checkpoint."""
        rows, seconds = self.ledger.take()
        with self.ledger.time("journal"):  # counted with the next round
            record = {**record, "seconds": {**record.get("seconds", {}), **seconds}}
            lines = "".join(json.dumps({"round": checkpoint.round, **row}) + "\n" for row in rows)
            atomic_files.append(self.folder / "ledger.jsonl", lines.encode())
            atomic_files.append(self.folder / "metrics.jsonl", (json.dumps(record) + "\n").encode())
            numbers = {"round": checkpoint.round}
            numbers |= {f"counted/{name}": at for name, at in checkpoint.counted.items()}
            numbers |= {f"holding/{name}": 1 for name in sorted(checkpoint.holding)}
            header = {"message": "checkpoint", "kind": "state", "constants": checkpoint.constants}
            data = pack(header, numbers, checkpoint.groups)
            digest = hashlib.sha256(data).hexdigest()
            home = self.folder / "state"
            atomic_files.write(home / f"{checkpoint.round:05d}-{digest}.safetensors", data)
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
        atomic_files.write(self.folder / "scores" / f"{name}-{round:05d}.json", content)

    def close(self) -> None:
        """Let other processes open the run."""
        self._claim.close()

    def _refuse_lost(self, last: int, damaged: Sequence[Path]) -> None:
        """Raise UserError if there were checkpoints, and none is whole; say what is done again.

        last: the round of the newest whole one; -1 for none.
        """
        reached = max((int(row["round"]) for row in records(self.folder)), default=-1)
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


def records(folder: Path, name: str = "metrics") -> list[Row]:
    """The lines of a run's metrics (or ledger), those that are whole."""
    file = folder / f"{name}.jsonl"
    lines = (atomic_files.read(file) or b"").splitlines(True)
    return [json.loads(line) for line in lines if _round_of(line) < sys.maxsize]


def read_scores(folder: Path, name: str, round: int) -> Row:
    """One evaluation as `Journal.scores` kept it; raises FileNotFoundError if there is none."""
    file = folder / "scores" / f"{name}-{round:05d}.json"
    if (data := atomic_files.read(file)) is None:
        raise FileNotFoundError(file)
    content: Row = json.loads(data)
    return content


def _round_of(line: bytes) -> int:
    """The round of a line; beyond all rounds if the line is not whole."""
    try:
        return int(json.loads(line)["round"]) if line.endswith(b"\n") else sys.maxsize
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return sys.maxsize
