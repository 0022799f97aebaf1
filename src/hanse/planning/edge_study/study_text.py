"""An edge study as lines of text and tables."""

from collections.abc import Iterator, Sequence

from hanse.planning.edge_study.records import THIS, BatchFigures, DeviceFigures, EdgeStudy, Passes
from hanse.reports import formatting

NOT_MEASURED = "–"


def lines(study: EdgeStudy) -> Iterator[str]:
    """The machine and the model, their steps, those of devices, and rounds over links."""
    yield (
        f"{study.model}: {study.parameters:,} weights at random, LoRA with {study.trained:,}; "
        f"an update has {formatting.bytes_(study.update)} each way in float32"
    )
    yield (
        f"this machine: {formatting.count(study.peak, 'FLOP/s')} in {study.precision} products and "
        f"{formatting.bytes_(study.bandwidth)}/s, measured with "
        f"{study.threads} of torch's threads"
    )
    if study.busy is not None and study.busy >= 0.1:
        yield f"other programs kept {study.busy:.1f} cores busy meanwhile: seconds are too long"
    yield ""
    yield f"A training step here, rows of {study.length} tokens:"
    yield from _table(BATCH, [_batch(own) for own in study.batches])
    if study.energy is None:
        yield "energy is not measured: the machine has no counter that this user may read"
    yield (
        f"model of cost: products at {100 * study.mfu:.0f} % of the peak, "
        f"{study.operator_us:.0f} µs for each operator; it is fitted to the seconds above, "
        f"{_off(study)}"
    )
    yield ""
    yield "A training step on other devices, by the model of cost, at the same share of the peak:"
    yield from _table(DEVICE, [_device(own) for own in study.devices])
    if others := {own.device for own in study.devices if own.precision != study.precision}:
        names = ", ".join(sorted(others))
        yield f"in float32, since no peak in {study.precision} is known: {names}"
    yield ""
    yield f"A round of {study.steps} steps, with an update each way:"
    yield from _table(ROUND, list(_rounds(study)))


def _off(study: EdgeStudy) -> str:
    """A clause on the error of the model of cost, which two passes determine."""
    if len(study.batches) == 1:
        return "which one number of rows meets exactly: give several by --batch to see its error"
    return f"and off by {100 * study.error:.0f} % of them on average"


BATCH = (
    *("rows", "forward", "backward", "optimizer", "step", "by model", "tokens/s"),
    *("FLOP", "MFU", "memory", "energy"),
)
DEVICE = ("device", "rows", "forward", "backward", "optimizer", "step", "memory", "energy")
ROUND = ("device", "rows", "link", "training", "network", "G", "share", "not worth asking")


def _batch(own: BatchFigures) -> list[str]:
    return [
        f"{own.rows}",
        *_passes(own.measured),
        _seconds(own.predicted.total),
        f"{own.tokens_per_second:,.0f}",
        formatting.count(own.flops),
        formatting.percent(own.mfu),
        formatting.bytes_(own.memory),
        _joules(own.joules),
    ]


def _device(own: DeviceFigures) -> list[str]:
    small = " (has less)" if own.has is not None and own.memory > own.has else ""
    unknown = " (has: not known)" if own.has is None else ""
    return [
        own.device,
        f"{own.rows}",
        *_passes(own.predicted),
        f"{formatting.bytes_(own.memory)}{small}{unknown}",
        _joules(own.joules),
    ]


def _rounds(study: EdgeStudy) -> Iterator[list[str]]:
    """Rows of rounds: of this machine all, of each device those of the largest batch."""
    largest = max(own.rows for own in study.batches)
    for own in study.rounds:
        if own.device == THIS or own.rows == largest:
            yield [
                own.device,
                f"{own.rows}",
                own.link,
                formatting.seconds(own.training),
                formatting.seconds(own.network),
                f"{own.granularity:.3g}",
                formatting.percent(own.share),
                own.objection,
            ]


def _passes(own: Passes) -> list[str]:
    parts = (own.forward, own.backward, own.optimizer, own.total)
    return [_seconds(part) for part in parts]


def _seconds(seconds: float) -> str:
    """Seconds; short ones in milliseconds, since a step on a GPU takes few."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else formatting.seconds(seconds)


def _joules(joules: float | None) -> str:
    return NOT_MEASURED if joules is None else f"{joules:,.3g} J"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of columns that are as wide as their widest cell."""
    cells = [[str(cell).replace(formatting.NO_BREAK, " ") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
