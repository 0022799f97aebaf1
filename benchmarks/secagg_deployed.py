"""Rounds over Flower with and without secure sums: seconds of a round, and of each exchange."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scale import prepare

from deployment import AGREEMENT, KITS, deploy, experiment, widen
from hanse.experiment.schema import Experiment
from hanse.journal import yaml_text
from hanse.journal.records import ClientRecord
from hanse.journal.run_folder import read_ledger, read_rounds


class Way(NamedTuple):
    """How the silos of a federation trust each other and the server."""

    trust: str  # as in `deployment.deploy`
    aggregator: Mapping[str, Any]


WAYS = {
    "mean, with kits": Way(KITS, {"mean": {}}),
    "mean, with kits and agreement": Way(AGREEMENT, {"mean": {}}),
    "secagg": Way(AGREEMENT, {"secagg": {}}),
}


def measure(home: Path, name: str, silos: int, rounds: int) -> dict[str, Any]:
    """One deployment: seconds of a round, and of its exchanges, after the first round.

    The first round waits for silos that are still starting.
    """
    prepare(home)
    widen(home)
    way = WAYS[name]
    values = experiment(home, silos, rounds).resolved()
    settings = Experiment.model_validate({**values, "aggregator": dict(way.aggregator)})
    deploy(home, settings, way.trust)
    ends = {row.round: row.time for row in read_rounds(home / "run")}
    ledger = [row for row in read_ledger(home / "run") if row.round > 1]
    seconds = [ends[number] - ends[number - 1] for number in range(2, rounds + 1)]
    return {
        "silos": silos,
        "rounds": len(seconds),
        "seconds_a_round": median(seconds),
        "all_seconds": seconds,
        "seconds_by_exchange": exchanges(ledger),
        "envelope_bytes": len(yaml_text.dump(settings.resolved())),  # of settings, in each request
    }


def exchanges(ledger: list[ClientRecord]) -> dict[str, float]:
    """Seconds from the first request of a kind to the last reply to it: medians over rounds."""
    found: dict[str, list[float]] = {}
    for kind in dict.fromkeys(row.kind for row in ledger):
        for round in dict.fromkeys(row.round for row in ledger):
            rows = [row for row in ledger if (row.kind, row.round) == (kind, round)]
            sent = [row.sent_at for row in rows if row.sent_at is not None]
            answered = [row.answered_at for row in rows if row.answered_at is not None]
            if sent and answered:
                found.setdefault(kind, []).append(max(answered) - min(sent))
    return {kind: median(seconds) for kind, seconds in found.items()}
