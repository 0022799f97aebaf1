"""A silo's part of a round, from the folder `state` of its silo.yaml."""

from collections import Counter
from pathlib import Path

from hanse.deployment.trace.events import (
    FolderTrace,
    Line,
    TraceEvent,
    events_of,
    log_lines,
    read_lines,
    round_of,
    run_of,
)

REFUSALS = "refusals.jsonl"


def trace(folder: Path, round: int, run: str = "") -> FolderTrace | None:
    """A silo's part of a round; None if the folder holds nothing of it.

    run: the first characters of the run's name; empty: the run with the newest lines of this round.
    """
    missing: list[str] = []
    lines = [line for line in log_lines(folder, missing) if round_of(line) == round]
    refusals = _refusals(folder)
    lines = [line for line in lines if run_of(line)]
    names = Counter(map(run_of, lines))
    chosen = run or (run_of(lines[-1]) if lines else "")
    lines = [line for line in lines if run_of(line) == chosen]
    if not lines:
        return None
    part = FolderTrace(folder, str(lines[-1].get("silo", folder.name)), chosen, missing=missing)
    part.events += events_of(lines, part.machine)
    part.events += _unlogged(refusals, part, round)
    part.clients = {part.machine}
    others = sorted(names.keys() - {chosen})
    if others and not run:
        part.missing.append(
            f"{folder} has a round {round} of {', '.join(others)}, too; --run chooses the run."
        )
    return part


def rounds(folder: Path) -> list[int]:
    """The rounds that a silo's log holds anything of, of all runs."""
    numbers = {round_of(line) for line in log_lines(folder, []) if run_of(line)}
    return sorted(number for number in numbers if number is not None)


def refusals_without_request(folder: Path, run: str) -> list[Line]:
    """The refusals of a run that concern no request, such as that of the whole job."""
    return [
        line
        for line in _refusals(folder)
        if not line.get("request_id") and run_of(line) in (run, "")
    ]


def _refusals(folder: Path) -> list[Line]:
    return read_lines(folder / "refusals.1.jsonl")[0] + read_lines(folder / REFUSALS)[0]


def _unlogged(refusals: list[Line], part: FolderTrace, round: int) -> list[TraceEvent]:
    """Refusals of this round whose reason the log does not have, such as withheld texts."""
    logged = [event.message for event in part.events]
    return [
        TraceEvent(
            line.get("time"),
            part.machine,
            "refused" if line.get("what") == "refused" else "policy",
            f"{line.get('what')}: {line.get('reason')}",
            part.machine,
            str(line["request_id"]),
        )
        for line in refusals
        if line.get("request_id")
        and round_of(line) == round
        and run_of(line) == part.run
        and not any(str(line.get("reason")) in message for message in logged)
    ]
