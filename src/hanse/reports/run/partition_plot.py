"""Plot of each client's rows by label: bars for few labels, a heat map for many."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from hanse.reports import formatting, plotting
from hanse.reports.plotting import COLOURS, NAMED, Plot
from hanse.reports.run.run_data import RunData

SHADES = 8  # of a heat map


def partition(run: RunData) -> Plot | None:
    """The number of each client's training rows by label."""
    division = run.division
    if division is None or not division.clients:
        return None
    by_size = sorted(division.clients, key=lambda name: -sum(division.clients[name].train.values()))
    names = sorted(plotting.thinned(by_size))
    counts = [division.clients[name].train for name in names]
    labels = list(dict.fromkeys((*division.labels, *(key for row in counts for key in row))))
    many = len(labels) > NAMED
    paint_rows = _shades if many else _stack

    def paint(axes: Axes) -> None:
        plotting.rows(axes, [formatting.middle(name, 18) for name in names])
        paint_rows(axes, labels, counts)

    caption = "Training rows of each client" + (" by label" if division.labels else "")
    most = max((row.get(label, 0) for row in counts for label in labels), default=0)
    caption += f": the darker, the more; at most {most:,}." if many else "."
    title = "Who holds what"
    height = (plotting.tall(len(names)) + (0.5 if many else 0.25),)
    return Plot("partition", title, caption + plotting.left_out(division.clients), paint, height)


def _stack(axes: Axes, labels: Sequence[str], counts: Sequence[dict[str, int]]) -> None:
    """A bar for each client, stacked by label."""
    starts = [0.0] * len(counts)
    for number, label in enumerate(labels):
        ends = [start + row.get(label, 0) for start, row in zip(starts, counts, strict=True)]
        spans = enumerate(zip(starts, ends, strict=True))
        corners = [(start, y - 0.4, end, y + 0.4) for y, (start, end) in spans]
        plotting.boxes(axes, corners, color=COLOURS[number], label=formatting.short(label, 18))
        starts = ends
    axes.set_xlim(0, max(starts) or 1)
    plotting.values(axes.xaxis, lambda value: f"{value:,.0f}")
    axes.set_xlabel("training rows")
    plotting.legend(axes)


def _shades(axes: Axes, labels: Sequence[str], counts: Sequence[dict[str, int]]) -> None:
    """A cell for each client and label, the darker the more rows."""
    most = max(row.get(label, 0) for row in counts for label in labels) or 1
    levels: dict[int, list[tuple[float, float, float, float]]] = {}
    for y, row in enumerate(counts):
        for x, label in enumerate(labels):
            if value := row.get(label, 0):
                cell = (x - 0.47, y - 0.47, x + 0.47, y + 0.47)
                levels.setdefault(math.ceil(SHADES * math.sqrt(value / most)), []).append(cell)
    for level, corners in levels.items():
        plotting.boxes(axes, corners, color=COLOURS[0], alpha=0.06 + 0.94 * level / SHADES)
    axes.grid(visible=False)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    names = [formatting.short(label, 14) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90 if sum(map(len, names)) > 30 else 0)
    axes.tick_params(axis="x", length=0)
