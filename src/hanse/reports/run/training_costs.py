"""Costs of training at each client, measured and predicted, and reasons for what is unknown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hanse.journal.records import ClientRecord
from hanse.journal.training_costs import TrainingCosts
from hanse.reports import formatting
from hanse.reports.run.run_data import RunData

NAMES = {
    "computing": "computing, T_comp",
    "communicating": "network, T_comm",
    "granularity": "G",
    "tokens_per_second": "tokens/s",
    "mfu": "MFU",
    "joules": "energy",
}
UNKNOWN = "not measured", "not predicted"


@dataclass(frozen=True)
class ClientCosts:
    """A client's mean costs of a round, as text: (measured, predicted) of each column."""

    name: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CostTable:
    """The table of all clients. columns: their titles. reasons: why something is not known."""

    columns: tuple[str, ...]
    clients: tuple[ClientCosts, ...]
    reasons: tuple[str, ...]


def training_costs(run: RunData) -> CostTable | None:
    """The costs of training by client; None if no line of the ledger has any."""
    by_client: dict[str, list[ClientRecord]] = {}
    for record in run.ledger:
        if record.measured is not None:
            by_client.setdefault(record.client, []).append(record)
    if not by_client:
        return None
    means = {
        name: (
            _mean([r.measured for r in records if r.measured]),
            _mean([r.predicted for r in records if r.predicted]),
        )
        for name, records in sorted(by_client.items())
    }
    clients = tuple(ClientCosts(name, tuple(_cells(*both))) for name, both in means.items())
    measured, predicted = zip(*means.values(), strict=True)
    reasons = (*_unmeasured(measured, run), *_unpredicted(predicted, run))
    return CostTable(tuple(NAMES.values()), clients, reasons)


def _mean(costs: Sequence[TrainingCosts]) -> TrainingCosts:
    """The mean of some rounds; ratios are those of the sums."""
    return TrainingCosts(
        computing=_weighted((own.computing, 1.0) for own in costs),
        communicating=_weighted((own.communicating, 1.0) for own in costs),
        granularity=_weighted((own.granularity, own.communicating) for own in costs),
        tokens_per_second=_weighted((own.tokens_per_second, own.computing) for own in costs),
        mfu=_weighted((own.mfu, own.computing) for own in costs),
        joules=_weighted((own.joules, 1.0) for own in costs),
    )


def _weighted(values: Iterable[tuple[float | None, float | None]]) -> float | None:
    """The weighted mean of the values that are known; None if there is none."""
    known = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if known else None


def _cells(measured: TrainingCosts, predicted: TrainingCosts) -> Iterator[tuple[str, str]]:
    """(measured, predicted) of each column as text."""
    for name in NAMES:
        first, second = (_text(name, getattr(costs, name)) for costs in (measured, predicted))
        yield first or UNKNOWN[0], second or UNKNOWN[1]


def _text(name: str, value: float | None) -> str:
    """A value as text; empty for one that is not known."""
    if value is None:
        return ""
    match name:
        case "computing" | "communicating":
            return formatting.seconds(value)
        case "mfu":
            return formatting.percent(value)
        case "joules":
            return formatting.count(value, "J")
        case "granularity":
            return f"{value:.3g}"
    return f"{value:,.0f}"


def _lacks(costs: Sequence[TrainingCosts], name: str) -> bool:
    return any(getattr(own, name) is None for own in costs)


def _unmeasured(costs: Sequence[TrainingCosts], run: RunData) -> Iterator[str]:
    """One sentence for each reason why something was not measured."""
    remote = run.remote
    if _lacks(costs, "computing"):
        yield (
            "Computing is not measured where no seconds were reported: a silo's policy may keep "
            "them, and a rule that sees sums only is told none."
        )
    if not remote:
        yield "The network is not measured: the clients of a simulation are in one process."
    elif _lacks(costs, "communicating"):
        yield (
            "The network is not measured where a silo reported no seconds, or more than had passed."
        )
    if remote:
        yield "MFU is not measured: the server does not know the peaks of the silos' machines."
    elif _lacks(costs, "mfu"):
        yield "MFU is not measured where no seconds were reported, or no operations counted."
    if _lacks(costs, "joules"):
        yield (
            "Energy is not measured where the machine has no counter that the user who trains may "
            "read (RAPL), or a GPU trains, whose energy is not read."
        )


def _unpredicted(costs: Sequence[TrainingCosts], run: RunData) -> Iterator[str]:
    """One sentence for each reason why something was not predicted."""
    if all(own.is_empty for own in costs):
        simulated = "" if run.remote else "the settings device and links, or "
        yield f"Nothing is predicted without {simulated}expected_seconds of a plan."
        return
    if _lacks(costs, "computing"):
        yield (
            "Computing is predicted for clients with a device, with links.seconds_per_step, or "
            "with expected_seconds of a plan."
        )
    if _lacks(costs, "communicating"):
        yield "The network and MFU are predicted in a simulation with links or devices."
    if _lacks(costs, "joules"):
        yield "Energy is predicted for devices whose watts are known."
