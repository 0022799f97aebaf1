"""The events of a round, and the reading of log lines into events."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hanse import atomic_files
from hanse.observability.json_logs import FILE
from hanse.observability.requests import RUN_LENGTH
from hanse.tensors import json_text

SERVER = "server"
Line = dict[str, Any]


@dataclass(frozen=True)
class TraceEvent:
    """Something that happened to a request or in its round.

    time: seconds since 1970 by the clock of its machine; None if no file says when.
    machine: "server", or the name of the silo that wrote it.
    event: one word, such as sent, received, refused, trained, encoded, replied, counted, committed.
    client, request_id: the client and the request; empty for an event of the whole round.
    """

    time: float | None
    machine: str
    event: str
    message: str
    client: str = ""
    request_id: str = ""


@dataclass
class FolderTrace:
    """The part of a round that one folder holds.

    run: the first characters of the run's name. clients: those that were asked, or answered.
    counted: the clients whose updates are in the model; committed: when the round was saved.
    missing: sentences on the facts that this folder does not hold.
    """

    folder: Path
    machine: str
    run: str
    events: list[TraceEvent] = field(default_factory=list)
    clients: set[str] = field(default_factory=set)
    counted: tuple[str, ...] = ()
    committed: float | None = None
    missing: list[str] = field(default_factory=list)


def read_lines(file: Path) -> tuple[list[Line], int]:
    """The objects of a .jsonl file, and how many of its lines cannot be read."""
    lines: list[Line] = []
    texts = (atomic_files.read(file) or b"").splitlines()
    for text in texts:
        with suppress(ValueError):
            lines.append(json_text.parse_object(text))
    return lines, len(texts) - len(lines)


def log_lines(folder: Path, missing: list[str]) -> list[Line]:
    """The lines of a folder's log and of the older one beside it; damaged ones are reported."""
    lines: list[Line] = []
    for file in (folder / f"{FILE}.1", folder / FILE):
        readable, damaged = read_lines(file)
        lines += readable
        if damaged:
            missing.append(f"{damaged} lines of {file} are damaged and left out.")
    return lines


def round_of(line: Line) -> int | None:
    """The round that a line concerns: that of its request, or else the one it was written in."""
    name = str(line.get("request_id", "")).split("/")
    number = name[1] if len(name) == 4 else line.get("round")
    try:
        return int(number)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def run_of(line: Line) -> str:
    """The first characters of the name of a line's run."""
    request = str(line.get("request_id", ""))
    return (request.split("/")[0] or str(line.get("run", "")))[:RUN_LENGTH]


def events_of(lines: list[Line], machine: str) -> Iterator[TraceEvent]:
    """The events in log lines; those that concern neither a request nor a silo must be warnings."""
    for line in lines:
        request, level = str(line.get("request_id", "")), str(line.get("level", ""))
        client = str(line.get("silo", ""))
        if request or client or level != "info":
            message = str(line.get("message", ""))
            if traceback := str(line.get("traceback", "")).splitlines():
                message = f"{message}: {traceback[-1]}"
            yield TraceEvent(
                seconds(line.get("time")),
                machine,
                str(line.get("event", level)),
                message,
                client,
                request,
            )


def seconds(time: object) -> float | None:
    """Seconds since 1970 of a time in ISO format."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None
