"""Bytes, seconds and memory of the round in progress."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hanse.journal.environment import gpu_use, peak_gpu_memory
from hanse.journal.ledger import Ledger
from hanse.journal.records import ClientRecord, EnvironmentRecord, RoundCosts
from hanse.journal.training_costs import Arithmetic, measured, predicted
from hanse.observability.memory import peak_memory

TRAINING = ("data", "forward", "backward", "optimizer")  # the parts of a client's training
SMALLEST = 1e-6  # seconds; less is a rounding error


def round_costs(ledger: Ledger, remote: bool) -> RoundCosts:
    """The costs of the round in progress so far.

    remote: whether messages travel between machines. The seconds in which the server waits for
        clients that neither train nor score are then transport, and else serialization, which is
        reading and writing messages and memories. If no client reports the seconds of its training,
        as under a rule that sees sums only, all seconds in which the server waits are the clients'.
    """
    trained, scored = ledger.total("seconds", "train"), ledger.total("seconds", "evaluate")
    clock = ledger.seconds
    parts = {kind: ledger.total(f"{kind}_seconds", "train") for kind in TRAINING}
    overhead = max(0.0, clock["clients"] - trained - scored)
    waited = "transport" if remote else "serialization"
    if not trained and any(r.kind == "train" and r.up and not r.error for r in ledger.records):
        waited = "clients"
    seconds = {
        **parts,
        "serialization": clock["serialization"],
        "transport": 0.0,
        "aggregation": max(0.0, clock.pop("round", 0.0) - clock["clients"] - clock["serialization"])
        + clock.pop("step", 0.0),
        "evaluation": clock.pop("evaluation", 0.0) + scored,
    }
    seconds[waited] = seconds.get(waited, 0.0) + overhead
    for name in ("clients", "serialization"):
        clock.pop(name)
    undivided = trained - sum(parts.values())
    if undivided > SMALLEST:  # of clients that do not report the parts of their training
        seconds["training"] = undivided
    return RoundCosts(
        bytes=ledger.traffic(),
        seconds=seconds,
        simulated_seconds=dict(ledger.simulated),
        tokens_per_second=ledger.total("tokens", "train") / trained if trained else 0.0,
        peak_memory=peak_memory(),
        gpu_memory=peak_gpu_memory(),
        gpu_use=gpu_use(),
    )


def simulated_seconds(rounds: Iterable[RoundCosts]) -> float | None:
    """The seconds of these rounds over simulated links; None if none has any."""
    seconds = [sum(costs.simulated_seconds.values()) for costs in rounds if costs.simulated_seconds]
    return sum(seconds) if seconds else None


def training_seconds(seconds: Mapping[str, float]) -> float:
    """The seconds of local training among a round's seconds by kind of work."""
    return sum(seconds.get(kind, 0.0) for kind in (*TRAINING, "training"))


def with_training_costs(
    record: ClientRecord,
    machine: EnvironmentRecord,
    expected: Mapping[str, float],
    remote: bool,
) -> ClientRecord:
    """The record with what its training took; one of anything else is unchanged.

    machine: on which all clients train, unless they are remote. expected: the seconds of a client's
        training in the run's plan.
    """
    if record.kind != "train" or record.late is not None or not record.up or record.error:
        return record
    seconds, tokens = record.amount("seconds"), record.amount("tokens")
    elapsed = None
    if remote and record.sent_at is not None and record.answered_at is not None:
        elapsed = record.answered_at - record.sent_at
    arithmetic = Arithmetic(machine.train_flops_per_token, machine.peak_flops)
    if remote:
        arithmetic = Arithmetic(None, None)
    return replace(
        record,
        measured=measured(seconds, tokens, record.amount("joules"), elapsed, arithmetic),
        predicted=predicted(record.simulated, expected.get(record.client), tokens),
    )
