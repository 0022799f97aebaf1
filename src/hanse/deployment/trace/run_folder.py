"""The server's part of a round, from its run folder."""

from dataclasses import replace
from pathlib import Path

from hanse import atomic_files
from hanse.deployment.trace.events import (
    SERVER,
    FolderTrace,
    Line,
    TraceEvent,
    events_of,
    log_lines,
    read_lines,
    round_of,
    run_of,
)
from hanse.journal.records import DEPLOYED, LEDGER, ROUNDS
from hanse.observability.json_logs import FILE
from hanse.observability.requests import RUN_LENGTH, SIMULATED, purpose


def trace(folder: Path, round: int) -> FolderTrace | None:
    """The server's part of a round; None if the folder holds nothing of it."""
    name = (atomic_files.read(folder / DEPLOYED) or b"").decode(errors="replace")
    part = FolderTrace(folder, SERVER, name[:RUN_LENGTH] or SIMULATED)
    logged = [
        line
        for line in log_lines(folder, part.missing)
        if round_of(line) == round and run_of(line) == part.run
    ]
    part.events += events_of(logged, SERVER)
    ledger = _of_round(folder / LEDGER, round, part.missing)
    part.events += _from_ledger(ledger, part)
    _add_commit(part, _of_round(folder / ROUNDS, round, part.missing))
    if not part.events:
        return None
    part.clients = {event.client for event in part.events if event.client}
    if name and not (folder / FILE).exists():
        part.missing.append(f"{folder} has no {FILE}, so it is not known when things happened.")
    part.missing += _unanswered(part.events)
    return part


def rounds(folder: Path) -> list[int]:
    """The rounds that a run folder holds anything of."""
    lines = log_lines(folder, []) + read_lines(folder / ROUNDS)[0]
    return sorted({number for line in lines if (number := round_of(line)) is not None})


def _of_round(file: Path, round: int, missing: list[str]) -> list[Line]:
    lines, damaged = read_lines(file)
    if damaged:
        missing.append(f"{damaged} lines of {file} are damaged and left out.")
    return [line for line in lines if line.get("round") == round]


def _from_ledger(lines: list[Line], part: FolderTrace) -> list[TraceEvent]:
    """The requests of the ledger that the log does not have: all of them in a simulation."""
    logged = {event.request_id for event in part.events}
    events: list[TraceEvent] = []
    for line in lines:
        request = str(line.get("request_id", ""))
        if (request and request in logged) or "late" in line:
            continue
        sent = TraceEvent(
            line.get("sent_at"),
            SERVER,
            "sent",
            f"sent: request {purpose(str(line.get('kind')))}, {int(line.get('down', 0)):,} bytes",
            str(line.get("client", "")),
            request,
        )
        events.append(sent)
        if "error" in line or line.get("up"):
            error = str(line.get("error", ""))
            event = "refused" if error else "received"
            message = error or f"received: {int(line['up']):,} bytes"
            events.append(replace(sent, time=line.get("answered_at"), event=event, message=message))
    if any(not line.get("request_id") for line in lines):
        part.missing.append(
            f"{part.folder / LEDGER} has no names of requests, since an older version wrote it; "
            "its requests are shown by client and kind, without times."
        )
    return events


def _add_commit(part: FolderTrace, lines: list[Line]) -> None:
    """Add the events of counted updates and of the commit."""
    if not lines:
        part.missing.append(
            "the round is not committed: its updates are not in the model, and the server asks "
            "for it again when it is started again."
        )
        return
    record = lines[-1]
    part.counted, part.committed = tuple(record.get("clients", ())), record.get("time")
    for client in part.counted:
        message = "counted: the update is in the model"
        request = f"{part.run}/{record['round']}/{client}/train"
        part.events.append(TraceEvent(part.committed, SERVER, "counted", message, client, request))
    message = f"committed: round {record['round']}"
    part.events.append(TraceEvent(part.committed, SERVER, "committed", message))


def _unanswered(events: list[TraceEvent]) -> list[str]:
    """A sentence for each request that was sent and never answered."""
    sent = {event.request_id: event.client for event in events if event.event == "sent"}
    answered = {event.request_id for event in events if event.event not in ("sent", "sent again")}
    return [
        f"{client} has not answered {name}."
        for name, client in sent.items()
        if name and name not in answered
    ]
