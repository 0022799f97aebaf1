"""The state of a server's run, for /healthz, /metrics and the log."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.server.roster import RemoteClient
from hanse.journal.record_files import readable_lines
from hanse.journal.records import LEDGER, ROUNDS, ClientRecord, RoundRecord
from hanse.observability import step_text
from hanse.observability.metrics_endpoint import Figure, Status


@dataclass
class Watch:
    """Reads a run's state from its folder and from the silos' connections.

    names: the silos that take part.
    silos: None while the server still loads the model.
    """

    folder: Path
    rounds: int
    names: Sequence[str]
    silos: RemoteClients | None = None

    def about(self) -> dict[str, Any]:
        """The run and the round that a log line names."""
        if self.silos is None:
            return {"run": "", "round": 0}
        envelopes = self.silos.envelopes
        return {"run": envelopes.envelope.run, "round": envelopes.round}

    def status(self) -> Status:
        """The whole state; it is healthy even while the run waits for silos."""
        rounds, _ = readable_lines(self.folder / ROUNDS, RoundRecord)
        known = self.silos.roster.clients.values() if self.silos else map(RemoteClient, self.names)
        clients = [*known]
        waiting = self.silos.waiting_for if self.silos else self.names
        now = time.monotonic()
        facts = {
            "run": self.about()["run"],
            "starting": self.silos is None,
            "round": rounds[-1].round if rounds else None,
            "rounds": self.rounds,
            "connected": [client.name for client in clients if client.node is not None],
            "waiting_for": [*waiting],
            "silos": {c.name: step_text.silo_activity(c.activity(now)) for c in clients},
            "paused": self._paused,
        }
        return Status(facts, True, [*self._progress(rounds), *_connections(clients, now)])

    @property
    def _paused(self) -> bool:
        return self.silos is not None and self.silos.paused

    def _progress(self, rounds: Sequence[RoundRecord]) -> Iterator[Figure]:
        done = rounds[-1].round if rounds else 0
        yield Figure("hanse_round", "The last round that is saved", done, {})
        yield Figure("hanse_rounds", "The number of rounds of the run", self.rounds, {})
        paused = "1 if too few silos are connected for a round"
        yield Figure("hanse_paused", paused, self._paused, {})
        for direction in ("down", "up"):
            total = sum(getattr(record.bytes, direction) for record in rounds)
            yield Figure("hanse_bytes", "Bytes of messages", total, {"direction": direction}, True)
        spent: dict[str, float] = {}
        for record in rounds:
            for part, seconds in record.seconds.items():
                spent[part] = spent.get(part, 0.0) + seconds
        for part, seconds in spent.items():
            yield Figure("hanse_seconds", "Seconds spent in a part", seconds, {"part": part}, True)
        ledger, _ = readable_lines(self.folder / LEDGER, ClientRecord)
        late = sum(reply.late is not None for reply in ledger)
        yield Figure("hanse_late_answers", "Replies that came too late or twice", late, {}, True)
        failed = sum(bool(reply.error) for reply in ledger)
        yield Figure("hanse_failed_answers", "Replies without an update", failed, {}, True)


def _connections(clients: Sequence[RemoteClient], now: float) -> Iterator[Figure]:
    for client in clients:
        label = {"silo": client.name}
        connected = client.node is not None
        yield Figure("hanse_silo_connected", "1 if the silo is connected", connected, label)
        if client.seen_at is not None:
            ago = now - client.seen_at
            yield Figure("hanse_silo_seen_seconds", "Seconds since its last reply", ago, label)
