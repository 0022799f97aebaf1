"""Draw the figures of README and guides, from benchmarks/results/*.json and the demo's last run."""

import json
import sys
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from measured import ROOT, results

from hanse.reports.plotting import COLOURS, GREY, Plot, draw, legend, rows
from hanse.reports.run.page import figure

LIGHT = "#d0d4d9"


def batched_clients(cases: list[dict[str, Any]]) -> Plot:
    """How much faster clients train together, by how many of them, a panel for each model."""
    shapes = list(dict.fromkeys(case["shape"] for case in cases))

    def paint(*panels: Axes) -> None:
        for axes, shape in zip(panels, shapes, strict=True):
            own = [case for case in cases if case["shape"] == shape]
            batches = sorted({(case["batch"], case["tokens"]) for case in own})
            for batch, tokens in batches:
                like = [c for c in own if (c["batch"], c["tokens"]) == (batch, tokens)]
                most = max(like, key=lambda case: case["clients"])["speedup"]
                sizes = [size for size in most if size.isdecimal()]
                axes.plot(
                    [int(size) for size in sizes],
                    [most[size] for size in sizes],
                    "o-",
                    markersize=4,
                    label=f"{batch} × {tokens}",
                )
            axes.axhline(1, color=GREY, linewidth=1, zorder=0)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16, 32, 64]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
            axes.set_ylim(bottom=0)
            axes.set_ylabel(f"times as fast ({shape})")
            legend(axes)
        panels[-1].set_xlabel("clients that train together")

    return Plot("batched_clients", "", "", paint, [2.0] * len(shapes))


def adapters(ways: dict[str, Any]) -> Plot:
    """What the federation reaches by what a round sends."""
    known = {name: way for name, way in ways.items() if "no_result" not in way}
    shown = {name: way for name, way in known.items() if not name.endswith("frozen")}

    def paint(axes: Axes) -> None:
        for name, way in shown.items():
            sent, reached = way["bytes"] / 1e6, 100 * way["federated"]["accuracy"]
            [point] = axes.plot(sent, reached, "o", markersize=5)
            seeds = [100 * value for value in way["federated"]["seeds"]]
            axes.vlines(sent, min(seeds), max(seeds), color=point.get_color(), linewidth=1)
            axes.annotate(name, (sent, reached), xytext=(4, 4), textcoords="offset points", size=7)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel("MB sent in a round, by four silos, both ways")
        axes.set_ylabel("accuracy, %")

    return Plot("adapters", "", "", paint, [3.2])


# Codecs whose names would cover others' to the right of their points.
TO_THE_LEFT = ("int4", "rand_k 1 %", "top_k 1 %, int8, zstd", "top_k 10 %, int8, zstd")


def wire(rows: dict[str, Any]) -> Plot:
    """The loss in the end by the bytes of an upload, and by the seconds of a round on the link."""
    beside = ("base", "centralised")  # which send nothing
    shown = {name: row for name, row in rows.items() if "runs" in row and name not in beside}

    def paint(*panels: Axes) -> None:
        for axes, key in zip(panels, ("up_bytes", "link_seconds"), strict=True):
            for name, row in shown.items():
                [point] = axes.plot(row[key], _end(row), "o", markersize=5)
                seeds = [run["losses"][-1] for run in row["runs"]]
                axes.vlines(row[key], min(seeds), max(seeds), color=point.get_color(), linewidth=1)
                side, offset = ("right", -4) if name in TO_THE_LEFT else ("left", 4)
                axes.annotate(
                    name,
                    (row[key], _end(row)),
                    xytext=(offset, 0),
                    textcoords="offset points",
                    size=7,
                    ha=side,
                    va="center",
                )
            axes.set_xscale("log")
            axes.margins(x=0.2, y=0.15)
            axes.set_ylabel("validation loss in the end")
        panels[0].set_xlabel("bytes up in a round, four silos")
        panels[1].set_xlabel("seconds of a round on the link, without training")

    return Plot("wire", "", "", paint, [3.0, 3.0])


def _end(row: dict[str, Any]) -> float:
    """The mean loss after the last round."""
    return float(row["loss"][max(row["loss"], key=int)])


def privacy(measured: dict[str, dict[str, Any]]) -> Plot:
    """Accuracy by ε: rows hidden in four silos, and silos hidden among 100 and 1,000.

    measured: the rows of both benchmarks, by name.
    """
    curves: dict[str, dict[float, dict[str, Any]]] = {}
    for benchmark, lines in measured.items():
        for name, row in lines.items():
            silos, _, epsilon = name.rpartition("ε ")
            if not epsilon.isdigit() or "runs" not in row:
                continue
            hidden = "rows of 4 silos" if benchmark == "row_privacy" else silos.rstrip(", ")
            curves.setdefault(hidden, {})[float(epsilon)] = row

    def paint(axes: Axes) -> None:
        for index, (name, points) in enumerate(curves.items()):
            budgets = sorted(points)
            reached = [100 * points[each]["accuracy"] for each in budgets]
            seeds = [[100 * value for value in points[each]["seeds"]] for each in budgets]
            places = [each * 1.03 ** (index - 1) for each in budgets]  # or lines cover each other
            [line] = axes.plot(places, reached, "o-", markersize=4, label=name)
            lows, highs = [min(own) for own in seeds], [max(own) for own in seeds]
            axes.vlines(places, lows, highs, color=line.get_color(), linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("ε of the whole run")
        axes.set_ylabel("accuracy, %")
        legend(axes)

    return Plot("privacy", "", "", paint, [3.0])


def frozen(ways: dict[str, Any]) -> Plot:
    """Accuracy by how much of the encoder is frozen: nothing, its embeddings, layer by layer."""
    known = [way for way in ways.values() if way.get("frozen") is not None]
    rows = sorted(known, key=lambda way: way["frozen"])

    def paint(axes: Axes) -> None:
        for kind in ("centralised", "federated"):
            reached = [[100 * value for value in way[kind]["seeds"]] for way in rows]
            means = [sum(values) / len(values) for values in reached]
            places = [way["frozen"] for way in rows]
            axes.plot(places, means, "o-", markersize=4, label=kind)
            axes.fill_between(places, [*map(min, reached)], [*map(max, reached)], alpha=0.15)
        names = [_left(way["frozen"]) for way in rows]
        axes.set_xticks([way["frozen"] for way in rows], names)
        axes.set_xlabel("frozen: embeddings (E) and so many of six layers")
        axes.set_ylabel("accuracy, %")
        legend(axes)

    return Plot("frozen", "", "", paint, [2.6])


def _left(frozen: int) -> str:
    """What so many of the encoder's parts are, embeddings and then layers."""
    return {0: "nothing", 1: "E"}.get(frozen, f"E + {frozen - 1}")


WORK = {  # kinds of work by their names in the figure
    "frozen products": ("frozen products",),
    "adapter": ("adapter products", "adapter scaling and sums"),
    "attention": ("attention",),
    "elementwise": ("norms", "rotary", "activations", "residual sums"),
    "copies, casts": ("copies and casts",),
    "optimizer": ("optimizer",),
    "Python": ("Python and dispatch",),
    "other": ("other",),
}


def profile_step(cases: list[dict[str, Any]]) -> Plot:
    """Milliseconds of a training step by kind of work, a panel for each model."""
    models = list(dict.fromkeys(case["model"] for case in cases))

    def paint(*panels: Axes) -> None:
        for axes, model in zip(panels, models, strict=True):
            own = [case for case in cases if case["model"] == model]
            ends = [0.0] * len(own)
            for (name, kinds), colour in zip(WORK.items(), (*COLOURS, GREY, LIGHT), strict=True):
                shares = [sum(case["shares"][kind] for kind in kinds) for case in own]
                widths = [
                    1000 * case["step_seconds"] * share
                    for case, share in zip(own, shares, strict=True)
                ]
                axes.barh(range(len(own)), widths, 0.7, ends, color=colour, label=name)
                ends = [end + width for end, width in zip(ends, widths, strict=True)]
            rows(axes, [_loop(case) for case in own])
            axes.set_xlabel(f"ms a step ({model})")
        legend(panels[0])

    return Plot("step_profile", "", "", paint, [1.6] * len(models))


def _loop(case: dict[str, Any]) -> str:
    """A bar's name: hanse's has that of the precision."""
    return case["precision"] if case["loop"] == "ours" else "plain loop"


def put(plot: Plot) -> None:
    """Draw a plot into docs/."""
    (ROOT / "docs" / f"{plot.name}.svg").write_bytes(draw(plot).svg)
    sys.stdout.write(f"docs/{plot.name}.svg drawn\n")


if __name__ == "__main__":
    if results("batched_clients").exists():
        put(batched_clients(json.loads(results("batched_clients").read_text())["cases"]))
    if results("adapters").exists():
        ways = json.loads(results("adapters").read_text())["ways"]
        put(adapters(ways))
        put(frozen(ways))
    if results("wire").exists():
        put(wire(json.loads(results("wire").read_text())["rows"]))
    prices = [name for name in ("row_privacy", "privacy_price") if results(name).exists()]
    if prices:
        put(privacy({name: json.loads(results(name).read_text())["rows"] for name in prices}))
    if results("profile_step").exists():
        put(profile_step(json.loads(results("profile_step").read_text())["cases"]))
    if (demo := ROOT / "runs" / "quickstart").exists():
        figure(demo, ROOT / "docs" / "quickstart.svg")
        sys.stdout.write("docs/quickstart.svg drawn\n")
