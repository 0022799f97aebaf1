"""Plots of a run's costs: bytes and seconds by round."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from hanse.journal.records import RoundRecord
from hanse.reports import formatting, plotting
from hanse.reports.plotting import COLOURS, GREY, Plot
from hanse.reports.run.run_data import RunData

LEAST = 0.02  # of all seconds; what took less is shown together
WAYS = (("down", "to clients"), ("up", "from clients"))


def traffic(run: RunData) -> Plot | None:
    """Bytes down and up by round."""
    if not any(row.bytes.down or row.bytes.up for row in run.rounds):
        return None
    sizes = {label: [getattr(row.bytes, way) for row in run.rounds] for way, label in WAYS}

    def paint(axes: Axes) -> None:
        _bars(axes, run.rounds, sizes)
        plotting.by_round(axes, "sent", formatting.bytes_)

    caption = "All clients together."
    if run.rounds[-1].client_test:
        caption += " In the last round each is sent the model once more, to score it."
    return Plot("bytes", "Bytes by round", caption, paint)


def time(run: RunData) -> Plot | None:
    """Seconds by round, stacked by what they were spent on."""
    kinds = list(dict.fromkeys(name for row in run.rounds for name in row.seconds))
    spent = {name: [row.seconds.get(name, 0.0) for row in run.rounds] for name in kinds}
    whole = sum(map(sum, spent.values()))
    if not whole:
        return None
    small = [name for name in kinds if sum(spent[name]) < LEAST * whole]
    others = [sum(values) for values in zip(*(spent.pop(name) for name in small), strict=True)]
    spent |= {"other": others} if others else {}

    def paint(axes: Axes) -> None:
        _bars(axes, run.rounds, spent)
        plotting.by_round(axes, "work", formatting.seconds)

    return Plot("time", "Where the time went", "All machines together.", paint)


def _bars(axes: Axes, rounds: Sequence[RoundRecord], parts: dict[str, list[float]]) -> None:
    """A bar for each round, stacked by part."""
    base = [0.0] * len(rounds)
    for (name, sizes), colour in zip(parts.items(), (*COLOURS, GREY), strict=False):
        top = [b + size for b, size in zip(base, sizes, strict=True)]
        spots = zip(rounds, base, top, strict=True)
        corners = [(row.round - 0.4, b, row.round + 0.4, t) for row, b, t in spots]
        plotting.boxes(axes, corners, color=colour, label=name)
        base = top
    axes.set_ylim(0, 1.05 * max(base) or 1)
