"""Where a round's bytes, seconds and memory went."""

from collections.abc import Mapping

from hanse.journal.environment import gpu
from hanse.journal.ledger import Ledger, Row
from hanse.observability.memory import peak_memory

TRAINING = ("data", "forward", "backward", "optimizer")  # what a client's training is made of
INSTANT = 1e-6  # seconds; less is rounding


def spent(ledger: Ledger, remote: bool) -> Row:
    """What the round in progress has taken so far.

    remote: whether messages travel. What waiting for the clients took beyond their training and
        scoring is then transport, else serialization: reading and writing messages and memory.
    """
    trained, scoring = ledger.total("seconds", "train"), ledger.total("seconds", "evaluate")
    clock = ledger.seconds
    parts = {kind: ledger.total(f"{kind}_seconds", "train") for kind in TRAINING}
    overhead = max(0.0, clock["clients"] - trained - scoring)
    seconds = {
        **parts,
        "serialization": clock["serialization"] + (0.0 if remote else overhead),
        "transport": overhead if remote else 0.0,
        "aggregation": max(0.0, clock.pop("round", 0.0) - clock["clients"] - clock["serialization"])
        + clock.pop("step", 0.0),
        "evaluation": clock.pop("evaluation", 0.0) + scoring,
    }
    for name in ("clients", "serialization"):
        clock.pop(name)
    untold = trained - sum(parts.values())
    if untold > INSTANT:  # of clients that do not say what their training is made of
        seconds["training"] = untold
    size = {"down": int(ledger.total("down")), "up": int(ledger.total("up"))}
    speed = ledger.total("tokens", "train") / trained if trained else 0.0
    return {
        "bytes": size,
        "seconds": seconds,
        "tokens_per_second": speed,
        "peak_memory": peak_memory(),
        **gpu(),
    }


def training(seconds: Mapping[str, float]) -> float:
    """The seconds of a round's local training, of all that it took by kind."""
    return sum(seconds.get(kind, 0.0) for kind in (*TRAINING, "training"))
