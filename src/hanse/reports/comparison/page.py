"""The page of a comparison: a table, the scores with their intervals, and their way there."""

from pathlib import Path

from matplotlib.axes import Axes

from hanse import atomic_files
from hanse.reports import formatting, plotting
from hanse.reports.comparison.comparison import Comparison
from hanse.reports.html import render
from hanse.reports.plotting import COLOURS, GREY, NAMED, Plot


def write_comparison(comparison: Comparison, target: Path) -> Path:
    """Write a comparison's page; the file."""
    pictures = [plotting.draw(plot) for plot in (_scores(comparison), _rounds(comparison)) if plot]
    page = render(
        "comparison/comparison", comparison=comparison, rows=table(comparison), pictures=pictures
    )
    atomic_files.write(target, page)
    return target


def table(comparison: Comparison) -> dict[str, list[str]]:
    """The rows of the table by their titles; each has one text for each run."""
    runs, name, unit = comparison.runs, comparison.metric, comparison.unit
    rows: dict[str, list[str]] = {}
    if name:
        rows[f"{comparison.split} {formatting.label(name)}"] = [
            "–" if run.score is None else formatting.score(run.score, name) for run in runs
        ]
        if any(run.interval for run in runs):
            rows["its 95 % interval"] = [
                formatting.bounds(run.interval.low, run.interval.high, name)
                if run.interval
                else "–"
                for run in runs
            ]
    if any(run.difference for run in runs):
        pairs = [run.difference for run in runs]
        rows[f"{formatting.label(unit)} minus {runs[0].name}'s"] = [
            formatting.change(pair.value, unit) if pair else "–" for pair in pairs
        ]
        rows["paired 95 % interval"] = [
            formatting.interval(pair.low, pair.high, unit) if pair else "–" for pair in pairs
        ]
    done = [(max(0, run.record.done), run.record.planned) for run in runs]
    rows["rounds done"] = [f"{at} of {planned}" if planned else f"{at}" for at, planned in done]
    rows["sent"] = [formatting.bytes_(run.costs.down + run.costs.up) for run in runs]
    rows["training"] = [  # none is reported under a rule that sees sums only
        formatting.seconds(run.costs.training) if run.costs.training else "–" for run in runs
    ]
    rows["all together"] = [formatting.seconds(run.costs.total) for run in runs]
    simulated = [run.costs.simulated for run in runs]
    if any(seconds is not None for seconds in simulated):
        rows["simulated time"] = ["–" if s is None else formatting.seconds(s) for s in simulated]
    return rows


def _scores(comparison: Comparison) -> Plot | None:
    """Each run's score with its interval."""
    runs, name = comparison.runs, comparison.metric
    if not name:
        return None

    def paint(axes: Axes) -> None:
        for y, run in enumerate(runs):
            if run.score is None:
                continue
            colour = COLOURS[y] if len(runs) <= NAMED else COLOURS[0]
            if run.interval:
                axes.plot([run.interval.low, run.interval.high], [y, y], color=colour, lw=2)
            axes.plot(run.score, y, "o", color=colour, ms=7)
            shown = formatting.score(run.score, name)
            axes.annotate(shown, (1.02, y), xycoords=("axes fraction", "data"), va="center")
        plotting.rows(axes, [formatting.middle(run.name, 22) for run in runs])
        plotting.values(axes.xaxis, lambda value: formatting.tick(value, name), ticks=4)
        axes.set_xlabel(f"{comparison.split} {formatting.label(name)}")

    caption = "After training"
    caption += ", with 95 % intervals" if any(run.interval for run in runs) else ""
    caption += f". {'Left' if formatting.lower_is_better(name) else 'Right'} is better."
    if any(run.difference for run in runs):
        caption += " Runs on the same test rows differ more clearly than these intervals show."
    height = (plotting.tall(len(runs)) + 0.1 * len(runs),)
    return Plot("scores", "What the runs reached", caption, paint, height)


def _rounds(comparison: Comparison) -> Plot | None:
    """Each run's validation by round."""
    name, runs = comparison.metric, comparison.runs
    lines = {
        run.name: {r.round: r.validation[name] for r in run.record.rounds if name in r.validation}
        for run in runs
    }
    if not name or not any(len(line) > 1 for line in lines.values()):
        return None

    def paint(axes: Axes) -> None:
        few = len(runs) <= NAMED
        for number, (label, line) in enumerate(lines.items()):
            colour = COLOURS[number] if few else GREY
            style = "o-" if few else "-"
            shown = formatting.middle(label, 22) if few else f"_{label}"
            size = plotting.dots(len(line))
            axes.plot([*line], [*line.values()], style, color=colour, ms=size, label=shown)
        plotting.by_round(axes, formatting.label(name), lambda value: formatting.tick(value, name))

    caption = "On each run's own validation rows."
    return Plot("rounds", f"Validation {formatting.label(name)} by round", caption, paint)
