"""What a server knows of its run just now, as `status` shows it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.journal import records
from hanse.runtimes.deployed import Deployed
from hanse.status import Figure, Status


@dataclass
class Watch:
    """Looks at the run folder and at who is there.

    run: the name by which silos know it.
    """

    folder: Path
    run: str
    rounds: int
    silos: Deployed

    def about(self) -> dict[str, Any]:
        """Of which run and round a log line is."""
        return {"run": self.run, "round": self.silos.letters.round}

    def status(self) -> Status:
        """All of it; it is well while the run goes on, although it may be waiting for silos."""
        rows = records(self.folder)
        there = [seat.name for seat in self.silos.seats.values() if seat.node is not None]
        done = rows[-1]["round"] if rows else None
        facts = {"run": self.run, "round": done, "rounds": self.rounds, "connected": there}
        facts |= {"waiting_for": self.silos.waiting_for, "paused": self.silos.paused}
        figures = [*self._progress(rows), *self._seats()]
        return Status(facts, True, figures)

    def _progress(self, rows: list[dict[str, Any]]) -> Iterator[Figure]:
        done = rows[-1]["round"] if rows else 0
        yield Figure("hanse_round", "The last round that is saved", done, {})
        yield Figure("hanse_rounds", "How many rounds the run has", self.rounds, {})
        said = "Whether too few silos are there for a round"
        yield Figure("hanse_paused", said, self.silos.paused, {})
        for way in ("down", "up"):
            total = sum(row["bytes"][way] for row in rows)
            yield Figure("hanse_bytes", "Bytes of messages", total, {"direction": way}, True)
        spent: dict[str, float] = {}
        for row in rows:
            for what, seconds in row["seconds"].items():
                spent[what] = spent.get(what, 0.0) + seconds
        for what, seconds in spent.items():
            yield Figure("hanse_seconds", "Where time went", seconds, {"part": what}, True)
        ledger = records(self.folder, "ledger")
        late = sum("late" in row for row in ledger)
        yield Figure("hanse_late_answers", "Answers that came too late or twice", late, {}, True)
        failed = sum("error" in row for row in ledger)
        yield Figure("hanse_failed_answers", "Answers that were no updates", failed, {}, True)

    def _seats(self) -> Iterator[Figure]:
        now = time.monotonic()
        for seat in self.silos.seats.values():
            own = {"silo": seat.name}
            there = seat.node is not None
            yield Figure("hanse_silo_connected", "Whether a silo is there", there, own)
            if seat.seen is not None:
                ago = now - seat.seen
                yield Figure("hanse_silo_seen_seconds", "Since it last said anything", ago, own)
