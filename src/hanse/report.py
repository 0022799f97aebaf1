"""The report of a run: one HTML file that needs nothing else, made from the journal alone."""

import io
import math
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hanse import __version__, settings, storage
from hanse.errors import UserError
from hanse.evaluation.intervals import Z95, paired
from hanse.journal import Row, read_scores, records

INK = "#1c2430"  # text and axes; in the page they take the page's own colour
COLOURS = ("#3b82c4", "#e08a2e", "#2f9e77", "#c4609a", "#8a7bd1", "#8b949e")  # on light and dark
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and set in the page's font
    "svg.hashsalt": "hanse",  # the same run gives the same bytes
    "text.parse_math": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.handlelength": 1,
    **{f"{part}.color": INK for part in ("text", "grid", "xtick", "ytick")},
    **{f"axes.{part}color": INK for part in ("label", "edge")},
}
Rows = list[Row]
Paint = Callable[[Figure, Rows, Rows], None]  # draws rounds and ledger into a figure


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder, which may be in progress; the file.

    Raises UserError if the folder holds no experiment.
    """
    values, text = settings.read(folder / "experiment.yaml")
    rounds, ledger = records(folder), records(folder, "ledger")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {f.__name__[1:]: f for f in (_bytes, _seconds, _score, _change, _label)}
    environment.filters |= {"quote": shlex.quote, "python": repr, "utc": time.gmtime}
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    facts: Row = {"folder": str(folder), "values": values, "settings": text, "rounds": rounds}
    facts |= {"ledger": ledger, "headline": _headline(folder, rounds), "version": __version__}
    paints = {"quality": _quality, "traffic": _traffic, "time": _time} if rounds else {}
    facts |= {name: _inline(paint, rounds, ledger) for name, paint in paints.items()}
    page = environment.from_string(template).render(facts)
    storage.write(folder / "report.html", page.encode())
    return folder / "report.html"


def figure(folder: Path, target: Path) -> None:
    """Draw a run's quality by round into a .png or .svg file."""
    if target.suffix not in (".png", ".svg"):
        raise UserError(f"a figure ends in .png or .svg, but {target} was asked for.")
    rounds = records(folder)
    if not rounds:
        raise UserError(f"{folder} has no finished round to draw.")
    storage.write(target, _draw(_quality, rounds, records(folder, "ledger"), target.suffix[1:]))


def _headline(folder: Path, rounds: Rows) -> tuple[str, str]:
    """What the run achieved in one sentence, and what must be said about it."""
    tested = [row["round"] for row in rounds if row.get("test")]
    files = sorted((folder / "scores").glob(f"test-*-{tested[0]:05d}.json")) if tested else []
    if len(tested) < 2 or not files:
        return "", ""  # the page gives the validation scores instead
    task = files[0].name.removesuffix(f"-{tested[0]:05d}.json")
    before, after = (read_scores(folder, task, number) for number in (tested[0], tested[-1]))
    old, new = before["items"], after["items"]
    if len(old) < 2 or not all(map(math.isfinite, old + new)):
        return "The test scores cannot be compared: one item alone, or values not finite.", ""
    name = "accuracy" if "accuracy" in after["metrics"] else "loss"
    mean, interval = sum(old) / len(old), paired(new, old)
    assert interval is not None  # there are two items at least
    verb = "rose" if interval.value > 0 else "fell" if interval.value < 0 else "went"
    low, high = (_change(v, name).split(" ")[0] for v in (interval.low, interval.high))
    sentence = (
        f"{'Accuracy' if name == 'accuracy' else 'Mean loss'} on {len(old):,} held-out examples "
        f"{verb} from {_score(mean, name)} to {_score(mean + interval.value, name)}: "
        f"{_change(interval.value, name)}, 95 % interval [{low}, {high}], paired."
    )
    if interval.low <= 0 <= interval.high:
        return sentence, "This run shows no clear change: the interval includes 0."
    worse = (interval.value > 0) == (name == "loss")
    return sentence, "The model is worse than before training." if worse else ""


def _quality(figure: Figure, rounds: Rows, ledger: Rows) -> None:
    """The global model's first metric, and below it the clients' training loss."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    scored = [row[split] for row in rounds for split in ("validation", "test") if row.get(split)]
    name = next(iter(scored[0])) if scored else ""
    for split, line in (("validation", "o-"), ("test", "s--")):
        rows = [row for row in rounds if name in row.get(split, {})]
        values = [row[split][name] for row in rows]
        error = [Z95 * row[split].get(f"{name}_se", 0.0) for row in rows]
        if rows:  # an empty line would still be in the legend
            upper.errorbar(_x(rows), values, error, fmt=line, label=split, ms=4, elinewidth=0.8)
    for client in sorted({row["client"] for row in ledger}):
        rows = [r for r in ledger if (r["client"], r["kind"]) == (client, "train") and "loss" in r]
        lower.plot(_x(rows), [row["loss"] for row in rows], "C5.-", lw=0.8, ms=3)
    rows = [row for row in rounds if "loss" in row.get("train", {})]
    losses = [row["train"]["loss"] for row in rows]
    lower.plot(_x(rows), losses, "C3o-", ms=4, label="mean (grey: each client)")
    _axis(upper, _label(name), lambda value: _score(value, name).replace(".0 %", " %"))
    _axis(lower, "training loss", lambda value: f"{value:.4g}")


def _traffic(figure: Figure, rounds: Rows, ledger: Rows) -> None:
    """Bytes down and up by round."""
    axes = figure.subplots()
    for way, label in (("down", "to clients"), ("up", "from clients")):
        sizes = [row["bytes"][way] for row in rounds]
        axes.plot(_x(rounds), sizes, "o-", ms=4, label=label)
    _axis(axes, "sent", _bytes)


def _time(figure: Figure, rounds: Rows, ledger: Rows) -> None:
    """Seconds by round, stacked by what they were spent on."""
    axes = figure.subplots()
    edges = [rounds[0]["round"] - 0.5, *(row["round"] + 0.5 for row in rounds)]
    base = [0.0] * len(rounds)
    for name in dict.fromkeys(name for row in rounds for name in row["seconds"]):
        top = [b + row["seconds"].get(name, 0.0) for b, row in zip(base, rounds, strict=True)]
        axes.stairs(top, edges, baseline=base, fill=True, label=name)
        base = top
    _axis(axes, "work", _seconds)


def _x(rows: Rows) -> list[int]:
    return [row["round"] for row in rows]


def _axis(axes: Axes, title: str, shown: Callable[[float], str]) -> None:
    """Whole rounds below, values as people write them, and a legend above the plot."""
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    labelled = axes.get_legend_handles_labels()  # none in a run without scores
    axes.legend(*labelled, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5)


def _draw(paint: Paint, rounds: Rows, ledger: Rows, kind: str, clear: bool = False) -> bytes:
    """A figure's PNG or SVG bytes, on white or (clear) on nothing."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        paint(figure, rounds, ledger)
        figure.axes[-1].set_xlabel("round")
        figure.set_size_inches(6, 0.6 + 2.1 * len(figure.axes))
        target, named = io.BytesIO(), "Date Creator Format Type" if kind == "svg" else "Software"
        nothing = dict.fromkeys(named.split())
        figure.savefig(target, format=kind, transparent=clear, dpi=200, metadata=nothing)
    return target.getvalue()


def _inline(paint: Paint, rounds: Rows, ledger: Rows) -> str:
    """A figure as SVG inside a page: in its font and colour, without ids that could meet."""
    svg = _draw(paint, rounds, ledger, "svg", clear=True).decode()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r' (id="[\w.]+_\d+"|xmlns(:\w+)?="[^"]*")', "", svg)
    return re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)


def _bytes(size: float) -> str:
    power = min(4, int(math.log10(max(1.0, size * 1.001)) / 3))
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _seconds(seconds: float) -> str:
    if seconds < 59.95:
        return f"{round(seconds, 3):.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _score(value: float, name: str) -> str:
    return f"{100 * value:.1f} %" if name.startswith("accuracy") else f"{value:.4g}"


def _change(value: float, name: str) -> str:
    text = f"{100 * value:+.1f} points" if name == "accuracy" else f"{value:+.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _label(name: str) -> str:
    return re.sub("_se$", ", standard error", name).replace("_", " ")
