"""The ledger: one row for each round, written once the round is committed."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hanse.observability.requests import SIMULATED
from hanse.tensors.serialization import Numbers

_COLUMNS = {"round", "client", "kind", "down", "up", "error"}  # not a client's to fill in
Row = dict[str, Any]


class Ledger:
    """Bytes and seconds of the round in progress, as they are spent.

    run_id: the run in the names of requests; a server sets the name by which silos know the run.
    """

    def __init__(self) -> None:
        self.run_id = SIMULATED
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
