"""Sentences on secure sums in a run: who was summed, the threshold, and who dropped out."""

from collections.abc import Sequence

from hanse.journal.records import RoundRecord

THRESHOLD, DROPPED_OUT = "threshold", "dropped_out"  # numbers of a round of secure sums
MOST_NAMED = 8  # rounds with drop-outs


def summed_securely(record: RoundRecord) -> bool:
    """True if a round's updates were summed by secure aggregation."""
    return record.train.keys() >= {THRESHOLD, DROPPED_OUT}


def secure_sums(rounds: Sequence[RoundRecord], deployed: bool) -> str:
    """Sentences on the secure sums of a run; empty without any.

    deployed: whether the clients were on other machines, with keys of their own.
    """
    summed = [record for record in rounds if summed_securely(record)]
    if not summed:
        return ""
    sizes = _between([len(record.clients) for record in summed])
    thresholds = _between([int(record.train[THRESHOLD]) for record in summed])
    text = (
        f"Updates were summed by secure aggregation: in each round the server could read the sum "
        f"over {sizes} clients, and no single update. The threshold was {thresholds} clients. "
        f"{_dropped(summed)}"
    )
    if deployed:
        return text
    return f"{text} The clients were simulated, with keys that protect nothing."


def _dropped(summed: Sequence[RoundRecord]) -> str:
    """A sentence on the clients that dropped out before their masked update had arrived."""
    by_round = {record.round: int(record.train[DROPPED_OUT]) for record in summed}
    named = [f"{count} in round {round}" for round, count in by_round.items() if count]
    if not named:
        return "No client dropped out before its masked update had arrived."
    more = f", and others in {len(named) - MOST_NAMED} more rounds" if named[MOST_NAMED:] else ""
    listed = ", ".join(named[:MOST_NAMED])
    return f"Clients that dropped out before their masked update had arrived: {listed}{more}."


def _between(numbers: Sequence[int]) -> str:
    """One number, or the range of several."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
