"""The costs of a run: bytes, seconds, memory and floating-point operations."""

from dataclasses import dataclass

from hanse.journal.ledger import PARTS
from hanse.journal.round_costs import simulated_seconds, training_seconds
from hanse.observability.paired_timing import Comparison
from hanse.reports import formatting
from hanse.reports.run.run_data import RunData


@dataclass(frozen=True)
class Costs:
    """Sums over the rounds there are; `share` is that of the machine's matrix peak, if known.

    simulated: seconds over simulated links; None without links.
    """

    down: float
    up: float
    seconds: dict[str, float]
    tokens_per_second: float
    peak_memory: float
    gpu_memory: float
    gpu_use: float | None
    flops: float | None
    flops_per_second: float | None
    share: float | None
    simulated: float | None

    @property
    def training(self) -> float:
        """The seconds of local training."""
        return training_seconds(self.seconds)

    @property
    def total(self) -> float:
        """All seconds."""
        return sum(self.seconds.values())


def costs(run: RunData) -> Costs:
    """The costs of a run so far."""
    rounds, machine = run.rounds, run.environment
    names = dict.fromkeys(name for row in rounds for name in row.seconds)
    seconds = {name: sum(row.seconds.get(name, 0.0) for row in rounds) for name in names}
    tokens = sum(reply.amount("tokens") or 0 for reply in run.ledger if reply.kind == "train")
    training = training_seconds(seconds)
    speed = tokens / training if training else 0.0
    each, peak = machine.train_flops_per_token, machine.peak_flops
    looks = [row.gpu_use for row in rounds if row.gpu_use is not None]
    return Costs(
        down=sum(row.bytes.down for row in rounds),
        up=sum(row.bytes.up for row in rounds),
        seconds=seconds,
        tokens_per_second=speed,
        peak_memory=max((row.peak_memory for row in rounds), default=0.0),
        gpu_memory=max((row.gpu_memory or 0.0 for row in rounds), default=0.0),
        gpu_use=sum(looks) / len(looks) if looks else None,
        flops=each * tokens if each and tokens else None,
        flops_per_second=each * speed if each and speed else None,
        share=each * speed / peak if each and speed and peak else None,
        simulated=simulated_seconds(rounds),
    )


def over_links(run: RunData, totals: Costs) -> str:
    """Sentences on the simulated links: their seconds, late updates and bytes sent again."""
    if totals.simulated is None:
        return ""
    took = formatting.seconds(totals.simulated)
    text = f"Over the simulated links the rounds take {took}, without the server's work."
    late = sum(record.late is not None and record.kind == "train" for record in run.ledger)
    if late:
        text += f" {late:,} update{'s' * (late > 1)} came too late to be used."
    journeys = [record.simulated for record in run.ledger if record.simulated]
    if resent := sum(journey.resent_down + journey.resent_up for journey in journeys):
        text += f" {formatting.bytes_(resent)} were lost on the way and sent again."
    return text


def sent_once(run: RunData) -> str:
    """A sentence on the files and the model that clients were sent once; empty without any."""
    sent = [record for record in run.ledger if record.kind in PARTS and record.down]
    if not sent:
        return ""
    size, clients = formatting.bytes_(sum(record.down for record in sent)), {r.client for r in sent}
    who = f"{len(clients):,} client{'s' * (len(clients) > 1)}"
    return f"Once: {size} of files that {who} needed to train, in the bytes of their rounds, too."


def spent(totals: Costs) -> str:
    """A sentence on the seconds by kind of work."""
    total = totals.total
    if not total:
        return ""
    parts = sorted(((value / total, name) for name, value in totals.seconds.items()), reverse=True)
    shares = [f"{formatting.percent(share)} {name}" for share, name in parts if share > 0.01]
    return f"{formatting.seconds(total)} in all: {', '.join(shares)}."


def precision(run: RunData) -> str:
    """Sentences on the measurements from which the precision of each model was chosen."""
    sentences = []
    for key, measurement in run.environment.measured.items():
        model = key.partition(", bf16 ")[0]
        figures = "; ".join(
            f"{comparison} {_milliseconds(comparison)}" for comparison in measurement.comparisons
        )
        crowd = "" if measurement.load is None else f" at a load of {measurement.load:.1f}"
        threads = f"{measurement.threads or '?'} threads{crowd}"
        sentences.append(f"The precision of {model} was chosen with {threads}: {figures}.")
    return " ".join(sentences)


def _milliseconds(comparison: Comparison) -> str:
    """The medians of both ways of a comparison, in brackets."""
    first, second = (f"{1000 * seconds:.2g} ms" for seconds in comparison.seconds)
    return f"({comparison.first} {first}, {comparison.second} {second})"


def computed(run: RunData, totals: Costs) -> str:
    """Sentences on the arithmetic of training and scoring; empty if it was not counted."""
    machine = run.environment
    if not machine.train_flops_per_token or not totals.flops or not totals.flops_per_second:
        return ""
    each = formatting.count(machine.train_flops_per_token, "FLOP")
    text = f"Training takes {each} a token (forward and backward, by torch's own counter)"
    if machine.forward_flops_per_token:
        text += f", scoring {formatting.count(machine.forward_flops_per_token, 'FLOP')}"
    text += f"; all training together took {formatting.count(totals.flops, 'FLOP')}, "
    text += f"at {formatting.count(totals.flops_per_second, 'FLOP/s')}."
    if totals.share is None or not machine.peak_flops:
        return text
    peak = f"{formatting.count(machine.peak_flops, 'FLOP/s')} that this machine reached in large "
    peak += "matrix products of the same precision when the run began"
    if totals.share > 1:
        return f"{text} That is more than the {peak}: other programs were at work then."
    return f"{text} That is {formatting.percent(totals.share)} of the {peak}."
