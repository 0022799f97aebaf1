"""Does federation pay, drawn: every way of training beside the others."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from hanse.journal.baselines_records import BaselinesRecord, Span
from hanse.reports import formatting, plotting
from hanse.reports.baselines.baselines_data import gain, single_values, span
from hanse.reports.plotting import COLOURS, GREY, Plot

SHOWN = {
    "base": "base model",
    "alone": "silos alone",
    "alone-longer": "silos alone, longer",
    "federated": "federated",
    "centralised": "all rows together",
    "centralised-small-batch": "the same, small batch",
}
FEDERATED, OTHER = COLOURS[1], COLOURS[0]
ROW = 0.36  # inches


def scores(baselines: BaselinesRecord) -> Plot | None:
    """Every line's score with its interval, and faintly what it is a mean of."""
    lines, name = baselines.summary, str(baselines.metric)
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        for y, line in enumerate(lines):
            colour = _colour(line.name)
            each = single_values(baselines, line)
            axes.plot(each, [y] * len(each), "o", color=colour, ms=4.5, alpha=0.5, mew=0)
            _draw(axes, y, span(baselines, line), colour)
            shown = formatting.score(line.value, name)
            axes.annotate(shown, (1.02, y), xycoords=("axes fraction", "data"), va="center")
            if line.name == "federated":
                axes.axvline(line.value, color=FEDERATED, lw=1, ls=":")
        _rows(axes, [line.name for line in lines])
        if name in formatting.SHARES:  # few seeds have intervals that go beyond what there can be
            low, high = axes.get_xlim()
            axes.set_xlim(max(low, -0.02), min(high, 1.02))
        plotting.values(axes.xaxis, lambda value: formatting.tick(value, name), ticks=4)
        axes.set_xlabel(f"{formatting.label(name)} on {baselines.test_items:,} test items")

    seeds = len(baselines.seeds)
    caption = "Bold: the mean"
    caption += f" over {seeds} seeds with its 95 % interval" if seeds > 1 else " (one seed)"
    caption += "; faint: each silo, or each seed. "
    caption += f"{'Right' if baselines.higher_is_better else 'Left'} is better."
    return Plot("scores", "Every way of training", caption, paint, (0.7 + ROW * len(lines),))


def gains(baselines: BaselinesRecord) -> Plot | None:
    """The gains of federated training over each other kind, with intervals."""
    name = str(baselines.metric)
    others = [line for line in baselines.summary if line.name != "federated"]
    if not others or all(line.name != "federated" for line in baselines.summary):
        return None

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=GREY, lw=1)
        for y, line in enumerate(others):
            _draw(axes, y, gain(baselines, line), FEDERATED)
        _rows(axes, [line.name for line in others])
        plotting.values(axes.xaxis, lambda value: formatting.step(value, name))
        axes.set_xlabel("points" if name in formatting.SHARES else formatting.label(name))

    title = "What federation gains over …"
    caption = "Right of zero: federated is better. "
    caption += "95 % intervals, paired by seed." if len(baselines.seeds) > 1 else "One seed."
    return Plot("gains", title, caption, paint, (0.7 + ROW * len(others),))


def own(baselines: BaselinesRecord, pairs: Mapping[str, tuple[float, float]]) -> Plot | None:
    """Each client on its own held-out rows: what it reaches alone, and in the federation."""
    name = str(baselines.metric)
    chosen = plotting.thinned(list(pairs))
    if not chosen:
        return None

    def paint(axes: Axes) -> None:
        for y, client in enumerate(chosen):
            axes.plot(pairs[client], [y, y], color=GREY, lw=1.2, alpha=0.6, zorder=1)
        alone, both = zip(*(pairs[client] for client in chosen), strict=True)
        axes.plot(alone, range(len(chosen)), "o", color=OTHER, ms=5.5, label="alone")
        axes.plot(both, range(len(chosen)), "o", color=FEDERATED, ms=5.5, label="federated")
        plotting.rows(axes, [formatting.middle(client, 18) for client in chosen])
        plotting.values(axes.xaxis, lambda value: formatting.tick(value, name))
        axes.set_xlabel(f"{formatting.label(name)} on its own held-out rows")
        plotting.legend(axes)

    caption = "Means over the seeds. A silo holds out few rows, so much of this is chance."
    caption += plotting.left_out(pairs)
    height = (plotting.tall(len(chosen)) + 0.25,)
    return Plot("own", "Each silo on its own rows", caption, paint, height)


def _draw(axes: Axes, y: float, shown: Span, colour: str) -> None:
    """A value and its interval."""
    if shown.low is not None and shown.high is not None:
        axes.plot([shown.low, shown.high], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
    axes.plot(shown.value, y, "o", color=colour, ms=7.5)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    plotting.rows(axes, [SHOWN.get(name, name) for name in names])


def _colour(name: str) -> str:
    return {"federated": FEDERATED, "base": GREY}.get(name, OTHER)
