"""hanse trace."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import console
from hanse.deployment.trace import round_trace
from hanse.deployment.trace.events import TraceEvent
from hanse.deployment.trace.round_trace import RoundTrace

Folders = Annotated[
    list[Path], typer.Argument(help="A run folder, or a silo's `state`; several of one run.")
]
Round = Annotated[int, typer.Option(help="The round.", min=0)]
Client = Annotated[str, typer.Option(help="Show one client only.")]
RunName = Annotated[str, typer.Option("--run", help="The run, where a silo's state has several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def trace(
    folders: Folders, round: Round, client: Client = "", run: RunName = "", as_json: AsJson = False
) -> None:
    """Follow the requests of one round in time order, and say what lies on other machines."""
    found = round_trace.trace(folders, round, client, run)
    if as_json:
        print(json.dumps(found.values(), ensure_ascii=False, indent=2))
        return
    console.print(_heading(found), soft_wrap=True)
    for event in found.events:
        console.print(_line(event), soft_wrap=True)
    for sentence in found.missing:
        console.print(f"missing  {sentence}", soft_wrap=True)


def _heading(trace: RoundTrace) -> str:
    heading = f"round {trace.round} of run {trace.run}"
    if trace.committed is None:
        return heading
    time = datetime.fromtimestamp(trace.committed).astimezone()
    counted = ", ".join(trace.counted) or "no clients"
    return f"{heading}, committed {time:%Y-%m-%d %H:%M:%S}, counted: {counted}"


def _line(event: TraceEvent) -> str:
    """One line: when, on which machine, which request, and what happened."""
    time = "-"
    if event.time is not None:
        time = f"{datetime.fromtimestamp(event.time).astimezone():%H:%M:%S.%f}"[:-3]
    subject = event.request_id or event.client
    return f"{time:<12}  {event.machine:<10}  {subject:<28}  {event.message}".rstrip()
