"""Put one round together from folders on this machine: the server's, a silo's, or both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hanse.deployment.trace import run_folder, silo_state
from hanse.deployment.trace.events import SERVER, FolderTrace, TraceEvent
from hanse.errors import UserError
from hanse.observability.json_logs import FILE
from hanse.observability.requests import RUN_LENGTH, SIMULATED


@dataclass(frozen=True)
class RoundTrace:
    """One round of one run, its events in order of time.

    committed: when the server saved the round; None if it has not, or is not among the folders.
    missing: sentences on what is not among the folders, and on which machine it lies.
    """

    run: str
    round: int
    committed: float | None
    counted: tuple[str, ...]
    events: tuple[TraceEvent, ...]
    missing: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        """The trace as plain values for JSON, times in ISO format."""
        events = [
            {name: value for name, value in vars(event).items() if value != ""}
            | {"time": iso(event.time)}
            for event in self.events
        ]
        return vars(self) | {"committed": iso(self.committed), "events": events}


def trace(folders: Sequence[Path], round: int, client: str = "", run: str = "") -> RoundTrace:
    """Put the events of a round together, in order of time.

    folders: run folders and silos' states, of one run.
    client: show the events of this client only. run: the run's name, or its first characters.
    Raises UserError if the folders hold nothing of this round, or of this client in it.
    """
    parts = _parts(folders, round, run[:RUN_LENGTH])
    missing = [sentence for part in parts for sentence in part.missing]
    missing += _elsewhere(parts, round)
    server = next((part for part in parts if part.machine == SERVER), None)
    trace = RoundTrace(
        parts[0].run,
        round,
        server.committed if server else None,
        server.counted if server else (),
        tuple(sorted((event for part in parts for event in part.events), key=_order)),
        tuple(missing),
    )
    return _of_client(trace, client, parts) if client else trace


def iso(time: float | None) -> str | None:
    """A time in ISO format, in UTC."""
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")


def _order(event: TraceEvent) -> float:
    return -math.inf if event.time is None else event.time


def _parts(folders: Sequence[Path], round: int, run: str) -> list[FolderTrace]:
    """The parts of a round, the server's first; the first part decides which run it is."""
    parts: list[FolderTrace] = []
    for folder in sorted(folders, key=_is_silo):
        chosen = run or (parts[0].run if parts else "")
        part = (
            silo_state.trace(folder, round, chosen)
            if _is_silo(folder)
            else run_folder.trace(folder, round)
        )
        if part is None or (chosen and part.run != chosen):
            raise UserError(_nothing(folder, round, chosen))
        parts.append(part)
    return parts


def _is_silo(folder: Path) -> bool:
    """Return true for a silo's state; raises UserError if the folder is no run folder either."""
    if (folder / "experiment.yaml").is_file():
        return False
    if (folder / FILE).is_file() or (folder / silo_state.REFUSALS).is_file():
        return True
    raise UserError(
        f"{folder} is neither a run folder nor the `state` folder of a silo; give the output_dir "
        "of a run, or the folder that `state` in a silo.yaml names."
    )


def _nothing(folder: Path, round: int, run: str) -> str:
    """The message for a missing trace: the folder's rounds, and refusals without a request."""
    known = (silo_state if _is_silo(folder) else run_folder).rounds(folder)
    has = f"it has {_ranges(known)}" if known else "its logs name no round"
    of_run = f" of run {run}" if run else ""
    sentence = f"{folder} holds nothing of round {round}{of_run}; {has}."
    refusals = silo_state.refusals_without_request(folder, run) if _is_silo(folder) else []
    if refusals:
        last = refusals[-1]
        sentence += f" Before any request, the silo has refused: {last.get('reason')}"
    return sentence


def _ranges(rounds: list[int]) -> str:
    if len(rounds) == rounds[-1] - rounds[0] + 1 > 1:
        return f"rounds {rounds[0]} to {rounds[-1]}"
    return f"{'rounds' if len(rounds) > 1 else 'round'} {', '.join(map(str, rounds))}"


def _elsewhere(parts: list[FolderTrace], round: int) -> list[str]:
    """Sentences on parts that lie on other machines, with the command that shows them there."""
    run, machines = parts[0].run, {part.machine for part in parts}
    if run == SIMULATED:
        return []
    sentences = []
    if SERVER not in machines:
        sentences.append(
            "whether the reply was counted and the round committed is in the run folder on the "
            f"server's machine; there: hanse trace RUN --round {round}"
        )
    clients = sorted({client for part in parts for client in part.clients} - machines)
    sentences += [
        f"what {client} did is in the `state` folder on its machine; there: hanse trace STATE "
        f"--round {round} --run {run}"
        for client in clients
    ]
    return sentences


def _of_client(trace: RoundTrace, client: str, parts: list[FolderTrace]) -> RoundTrace:
    """The events of one client, and those that concern the whole round."""
    clients = sorted({name for part in parts for name in part.clients})
    if client not in clients:
        raise UserError(f"round {trace.round} has no client {client}; it has {', '.join(clients)}.")
    events = tuple(event for event in trace.events if event.client in (client, ""))
    other_clients = {name for name in clients if name != client}
    missing = (
        line for line in trace.missing if not any(f"{name} " in line for name in other_clients)
    )
    return replace(trace, events=events, missing=tuple(missing))
