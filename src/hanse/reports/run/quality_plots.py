"""Plots of the model's quality: by round, the clients' losses, and on the clients' own rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from hanse.evaluation.metrics.confidence import Interval, recorded
from hanse.journal.records import RoundRecord
from hanse.reports import formatting, plotting
from hanse.reports.plotting import COLOURS, GREY, INK, NAMED, Plot
from hanse.reports.run.run_data import RunData

DRAWN = 12  # clients that have a line each


def metric(run: RunData) -> str:
    """The metric that the plots are about: the first that was measured."""
    measured = [row.validation or row.test for row in run.rounds]
    return next((next(iter(scores)) for scores in measured if scores), "")


def quality(run: RunData) -> Plot | None:
    """The global model on the server's held-out rows."""
    name = metric(run)
    if not name:
        return None

    def paint(axes: Axes) -> None:
        for split, colour in (("validation", COLOURS[0]), ("test", COLOURS[1])):
            rows = [row for row in run.rounds if name in getattr(row, split)]
            scores = [getattr(row, split) for row in rows]
            middle = [scored[name] for scored in scores]
            bounds = [interval(scored, name, run.rows(split)) for scored in scores]
            low, high = _ends(middle, bounds)
            style: Any = {"color": colour, "ms": plotting.dots(len(rows)), "label": split}
            if rows and split == "validation":  # an empty line would still be in the legend
                axes.plot(_x(rows), middle, "o-", **style)
                axes.fill_between(_x(rows), low, high, color=colour, alpha=0.15, lw=0)
            elif rows:
                axes.plot(_x(rows), middle, "s:", **style)
                axes.vlines(_x(rows), low, high, color=colour, lw=1.2)
        plotting.by_round(axes, formatting.label(name), lambda value: formatting.tick(value, name))

    caption = "The global model on held-out rows"
    caption += ", with each score's 95 % interval." if f"{name}_se" in _any(run) else "."
    return Plot("quality", f"{formatting.label(name).capitalize()} by round", caption, paint)


def loss(run: RunData) -> Plot | None:
    """The clients' training loss, and its mean."""
    lines: dict[str, dict[int, float]] = {}
    for row in run.ledger:
        if row.kind == "train" and row.loss is not None and math.isfinite(row.loss):
            lines.setdefault(row.client, {})[row.round] = row.loss
    losses = {row.round: row.train.get("loss", math.nan) for row in run.rounds}
    mean = {number: value for number, value in losses.items() if math.isfinite(value)}
    if not lines and not mean:
        return None

    def paint(axes: Axes) -> None:
        _lines(axes, lines)
        mark = "." if len(mean) == 1 else None
        axes.plot([*mean], [*mean.values()], color=INK, lw=1.8, marker=mark, label="mean")
        plotting.by_round(axes, "training loss", lambda value: f"{value:.4g}")

    caption = "What the clients report on the rows that they train on"
    if not lines:
        caption += "; the server learns their mean alone"
    elif len(lines) > DRAWN:
        caption += "; grey: from the least to the most, black: their mean"
    elif len(lines) > NAMED:
        caption += "; each grey line is one client, black: their mean"
    return Plot("loss", "Training loss by round", f"{caption}.", paint)


def own(run: RunData) -> Plot | None:
    """The final model on the rows that each client kept for itself."""
    scored = run.rounds[-1].client_test if run.rounds else {}
    name = metric(run) or next((name for scores in scored.values() for name in scores), "")
    chosen = plotting.thinned([client for client in sorted(scored) if name in scored[client]])
    if not chosen:
        return None
    sizes = {m.client: m.weight for m in run.ledger if m.kind == "evaluate" and m.weight}
    whole = run.rounds[-1].test.get(name, math.nan)

    def paint(axes: Axes) -> None:
        for y, client in enumerate(chosen):
            if bounds := interval(scored[client], name, sizes.get(client)):
                axes.plot([bounds.low, bounds.high], [y, y], color=COLOURS[0], lw=1.4)
            axes.plot(scored[client][name], y, "o", color=COLOURS[0], ms=5)
        if math.isfinite(whole):
            axes.axvline(whole, color=COLOURS[1], lw=1.2, ls="--")
        plotting.rows(axes, [_named(client, sizes.get(client)) for client in chosen])
        plotting.values(axes.xaxis, lambda value: formatting.tick(value, name))
        axes.set_xlabel(formatting.label(name))

    caption = "The final model on rows that each client kept for itself"
    if any(f"{name}_se" in scores for scores in scored.values()):
        caption += " (their number in brackets), with 95 % intervals"
    caption += "; dashed: on the common test rows." if math.isfinite(whole) else "."
    height = (plotting.tall(len(chosen)),)
    return Plot("own", "Each client's own rows", caption + plotting.left_out(scored), paint, height)


def _lines(axes: Axes, lines: Mapping[str, Mapping[int, float]]) -> None:
    """A few clients' lines by colour, more in grey, and of many only how far they spread."""
    if len(lines) > DRAWN:
        numbers = sorted({number for line in lines.values() for number in line})
        spread = [[line[n] for line in lines.values() if n in line] for n in numbers]
        low, high = [min(values) for values in spread], [max(values) for values in spread]
        axes.fill_between(numbers, low, high, color=GREY, alpha=0.35, lw=0)
        return
    colours = COLOURS if len(lines) <= NAMED else (GREY,) * DRAWN
    for (name, line), colour in zip(sorted(lines.items()), colours, strict=False):
        label = name if len(lines) <= NAMED else f"_{name}"  # matplotlib leaves out what begins so
        size = plotting.dots(len(line))
        axes.plot([*line], [*line.values()], ".-", color=colour, lw=0.9, ms=size, label=label)


def interval(scores: Mapping[str, float], name: str, rows: float | None) -> Interval | None:
    """A score's 95 % interval from its standard error or its number of rows; None without both."""
    return recorded(scores[name], scores.get(f"{name}_se"), rows, name in formatting.SHARES)


def _ends(values: Sequence[float], bounds: Sequence[Interval | None]) -> tuple[list[float], ...]:
    """The lower and the upper ends of a band around values; it has no width where none is known."""
    pairs = list(zip(values, bounds, strict=True))
    return [b.low if b else value for value, b in pairs], [b.high if b else v for v, b in pairs]


def _named(client: str, rows: float | None) -> str:
    return formatting.middle(client, 18) + (f" ({rows:,.0f})" if rows else "")


def _any(run: RunData) -> set[str]:
    return {name for row in run.rounds for name in (*row.validation, *row.test)}


def _x(rows: Sequence[RoundRecord]) -> list[int]:
    return [row.round for row in rows]
