"""The ledger of the round in progress: the bytes, numbers and seconds that it has taken so far."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hanse.journal.journey import Journey
from hanse.journal.records import MOST_ROUND, ClientRecord, Traffic
from hanse.observability.requests import SIMULATED, request_id
from hanse.tensors.serialization import Numbers

# Kinds of requests that are the parts of one; a client's are joined in one record up to an error.
PARTS = frozenset({"prepare"})


class Ledger:
    """Requests and replies of the round in progress, and seconds by kind of work.

    simulated: the simulated seconds of a round with links, by kind of request.
    run_id: the run in the names of requests; a server sets the name by which silos know the run.
    records: one for each request, in the order in which requests were sent; `take` sets the round.
    """

    def __init__(self) -> None:
        self.run_id = SIMULATED
        self.records: list[ClientRecord] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.simulated: defaultdict[str, float] = defaultdict(float)
        self._last: dict[tuple[str, str], int] = {}  # index of the last request by client and kind
        self._arrived: dict[tuple[str, str], float] = {}  # times of replies not used yet

    @property
    def is_remote(self) -> bool:
        """True if the run is known to silos by a name: messages travel over a real network."""
        return self.run_id != SIMULATED

    def sent(self, client: str, kind: str, size: int) -> None:
        """Note that a request of `size` bytes was sent to a client."""
        index = self._last.get((client, kind))
        if kind in PARTS and index is not None and not self.records[index].error:
            record = self.records[index]
            self.records[index] = replace(record, down=record.down + size)
            return
        self._last[client, kind] = len(self.records)
        self._arrived.pop((client, kind), None)  # of an earlier request
        self.records.append(ClientRecord(0, client, kind, down=size, sent_at=time.time()))

    def arrived(self, client: str, kind: str, at: float) -> None:
        """Note when the reply to a client's last request came, which is used in its turn."""
        self._arrived[client, kind] = at

    def received(
        self, client: str, kind: str, size: int, numbers: Numbers, error: str = ""
    ) -> None:
        """Note the reply to the client's last request of a kind, and the numbers that it reports.

        error: why the reply is not used.
        """
        index = self._last[client, kind]
        record = self.records[index]
        self.records[index] = replace(
            record,
            up=record.up + size,
            numbers={**record.numbers, **numbers},
            error=error or record.error,
            answered_at=self._arrived.pop((client, kind), None) or time.time(),
        )

    def travelled(self, client: str, kind: str, journey: Journey) -> None:
        """Note the simulated seconds of the client's last request of a kind, and of its reply."""
        index = self._last[client, kind]
        record = self.records[index]
        total = record.simulated + journey if record.simulated else journey
        self.records[index] = replace(record, simulated=total)

    def refused(self, client: str, kind: str, of: int, size: int) -> None:
        """Note a reply to a request of round `of`, by its own word, that came too late or again."""
        late = min(of, MOST_ROUND)  # or the line could not be read again
        self.records.append(
            ClientRecord(0, client, kind, late=late, unused=size, answered_at=time.time())
        )

    def _of_round(self, record: ClientRecord, round: int) -> ClientRecord:
        """A record as one of a round; the request of a late reply has the round that it was in."""
        requested = round if record.late is None else record.late
        name = request_id(self.run_id, requested, record.client, record.kind)
        return replace(record, round=round, request_id=name)

    @contextmanager
    def time(self, work: str) -> Iterator[None]:
        """Add the seconds of a block to those of a kind of work."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[work] += time.perf_counter() - start

    def traffic(self) -> Traffic:
        """The bytes of all requests and replies."""
        down, up = sum(r.down for r in self.records), sum(r.up for r in self.records)
        return Traffic(down, up)

    def total(self, name: str, kind: str) -> float:
        """The sum of a number that clients report in replies of one kind."""
        return float(sum(r.numbers.get(name, 0) for r in self.records if r.kind == kind))

    def take(self, round: int) -> tuple[list[ClientRecord], dict[str, float]]:
        """The records and seconds so far, as those of a round; the ledger begins anew."""
        records = [self._of_round(record, round) for record in self.records]
        seconds = dict(self.seconds)
        self.records, self._last, self.seconds = [], {}, defaultdict(float)
        self._arrived = {}
        self.simulated = defaultdict(float)
        return records, seconds
