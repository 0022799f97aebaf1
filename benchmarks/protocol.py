"""The protocol of comparisons on real data: deals, base, all rows in one place, what is kept."""

import argparse
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from many_runs import Task
from measured import ROOT, keep, results

from hanse.journal import run_folder

DEALS = (101, 102, 103)  # the seeds of the deals with which learning rates are chosen
SEEDS = (1, 2, 3)  # those of the deals on which methods are compared

# A run whose steps are too small to move a number: its scores are those of the untrained model.
UNTRAINED = (
    "rounds=1",
    "train.num_train_epochs=null",
    "train.max_steps=1",
    "train.learning_rate=1e-30",
)

Row = dict[str, Any]


def pooled(clients: int) -> tuple[str, ...]:
    """All rows in one place: rounds and updates of one client, each on the batches of all.

    An optimizer begins afresh with every round, as at a client of the federation.
    """
    return "data.pooled=true", f"train.gradient_accumulation_steps={clients}"


def file_name(name: str) -> str:
    """The name of a method as a part of the names of its runs' folders."""
    return name.replace(", ", "-").replace(" %", "").replace(" ", "-")


def held_out(task: Task) -> dict[str, float]:
    """How many reviews each silo held out for itself."""
    last = run_folder.read_rounds(task.folder)[-1].round
    ledger = run_folder.read_ledger(task.folder)
    asked = [row for row in ledger if (row.round, row.kind) == (last, "evaluate")]
    return {row.client: row.weight for row in asked if row.weight}


def own(task: Task, metric: str) -> float:
    """The score on the reviews that silos hold out, each with what it keeps, over all reviews."""
    scored = run_folder.read_rounds(task.folder)[-1].client_test
    weights = held_out(task)
    total = sum(scored[name][metric] * weight for name, weight in weights.items())
    return float(total / sum(weights.values()))


def items(task: Task) -> list[float]:
    """Whether each test review was right in the end."""
    last = run_folder.read_rounds(task.folder)[-1].round
    return list(run_folder.read_evaluation(task.folder, "test-classification", last).items)


def fingerprint(*tasks: Task) -> str:
    """By what a row was made: the experiment's text and all settings of its runs.

    Files in this folder count by their names in it, wherever it is.
    """
    told = [
        [task.file.read_text(encoding="utf-8"), *(w.replace(str(ROOT), "") for w in task.settings)]
        for task in tasks
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class Kept:
    """What a benchmark has finished: its result file, written anew after every row.

    What another protocol has left is not gone on with. A row that was made by other settings than
    it now has is not found, and so made again.
    """

    def __init__(self, name: str, protocol: Row) -> None:
        self.name = name
        file = results(name)
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        made_alike = found.get("protocol") == protocol
        self.content: Row = found if made_alike else {"protocol": protocol}

    def row(self, made: str, *path: str) -> Row | None:
        """A finished row that was made in this way; none if there is none."""
        found: Row = self.content
        for name in path:
            found = found.get(name, {})
        return found if found.get("made") == made else None

    def put(self, row: Row, made: str, *path: str) -> None:
        """Keep a finished row."""
        place = self.content
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = {"made": made, **row}
        self.write()

    def write(self) -> None:
        """Write the file; the command that stands in it is the one that makes all of it."""
        measured = {"command", "machine", "versions"}
        own = {name: value for name, value in self.content.items() if name not in measured}
        keep(self.name, {"command": f"python benchmarks/{self.name}.py", **own})


@dataclass(frozen=True)
class Asked:
    """What the command line says of a benchmark that is made in parts.

    short: a single seed and deal, in a folder of its own, to see that all of it runs.
    """

    only: tuple[str, ...]
    words: tuple[str, ...]
    brief: bool

    def home(self, folder: Path) -> Path:
        """Where the runs are."""
        return folder.with_name(f"{folder.name}-short") if self.brief else folder

    @property
    def short(self) -> tuple[Sequence[int], Sequence[int]]:
        """The seeds of the comparison and of the search."""
        return (SEEDS[:1], DEALS[:1]) if self.brief else (SEEDS, DEALS)


def wanted(parts: Mapping[str, Iterable[str]], only: Sequence[str]) -> list[str]:
    """The ways of these parts, or ways by their names; all if none is named."""
    ways = [way for part in parts.values() for way in part]
    for name in only:
        if name not in parts and name not in ways:
            known = ", ".join(dict.fromkeys([*parts, *ways]))
            raise SystemExit(f"--only {name}: no such part or way; there are {known}.")
    named = {way for name in only or parts for way in parts.get(name, [name])}
    return [way for way in ways if way in named]


def asked(about: str | None) -> Asked:
    """Read the command line, and begin to log."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="parts or ways, if not all")
    parser.add_argument("--set", nargs="+", default=[], help="settings to change, with --short")
    parser.add_argument("--short", action="store_true", help="one seed, one deal; proves little")
    found = parser.parse_args()
    if found.set and not found.short:
        parser.error("--set changes the experiment, whose figures are then others; add --short")
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    return Asked(tuple(found.only), tuple(found.set), found.short)
