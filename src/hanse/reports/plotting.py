"""Drawing of plots: as files on white, and inside a page in the page's font and colours."""

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hanse import atomic_files

INK = "#1c2430"  # text and axes; in a page they take the page's own colour
# Mid-tones that stand out from white and from near-black; told apart by the colour-blind, too.
COLOURS = ("#3b82c4", "#e08a2e", "#2f9e77", "#c4609a", "#8a7bd1", "#b59a1f")
GREY = "#8b949e"
PAPER = "#ffffff"
SHOWN = 50  # clients in one plot; of more, this many are shown
NAMED = 6  # lines or parts that are told apart by colour
MANY = 20  # rows or rounds that are drawn closer together
WIDTH = 4.2  # inches: so narrow that its text can be read on a phone
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and set in the page's font
    "svg.hashsalt": "hanse",  # the same run gives the same bytes
    "text.parse_math": False,
    "font.size": 9,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.handlelength": 1,
    "legend.columnspacing": 1.2,
    **{f"{part}.color": INK for part in ("text", "grid", "xtick", "ytick")},
    **{f"axes.{part}color": INK for part in ("label", "edge")},
}


@dataclass(frozen=True)
class Plot:
    """One picture of a page.

    name: of its files. title: what it shows. caption: how to read it.
    paint: draws it into empty axes, one for each of `heights` (inches), from top to bottom.
    """

    name: str
    title: str
    caption: str
    paint: Callable[..., None]
    heights: Sequence[float] = (2.3,)


@dataclass(frozen=True)
class Picture:
    """A plot as it was drawn: as a page shows it, and as files on white."""

    plot: Plot
    svg: bytes
    png: bytes

    @property
    def inline(self) -> str:
        """SVG inside a page: without a background, and without ids that could meet."""
        svg = self.svg.decode()
        svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
        svg = re.sub(r' (id="[\w.]+_\d+"|xmlns(:\w+)?="[^"]*")', "", svg)
        return re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)


def draw(plot: Plot) -> Picture:
    """Draw a plot in both kinds of file."""
    files = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(plot.heights)), layout="constrained")
        axes = figure.subplots(len(plot.heights), 1, height_ratios=plot.heights, squeeze=False)
        plot.paint(*axes[:, 0])
        for kind, named in (("svg", ("Date", "Creator", "Format", "Type")), ("png", ("Software",))):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=200, metadata=dict.fromkeys(named))
            files.append(file.getvalue())
            figure.set_layout_engine(None)  # the second file is laid out as the first
    return Picture(plot, *files)


def keep(pictures: Iterable[Picture], folder: Path) -> None:
    """Write every picture as .png and .svg into a folder, which is replaced as a whole."""
    with atomic_files.folder(folder, replace=True) as aside:
        for picture in pictures:
            (aside / f"{picture.plot.name}.png").write_bytes(picture.png)
            (aside / f"{picture.plot.name}.svg").write_bytes(picture.svg)


def by_round(axes: Axes, title: str, shown: Callable[[float], str]) -> None:
    """Whole rounds below, values as people write them, and a legend above the plot."""
    axes.set_xlabel("round")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = axes.get_xlim()
    if high - low < 1:  # a single round
        axes.set_xlim(low - 0.5, high + 0.5)
    values(axes.yaxis, shown)
    legend(axes)


def values(axis: Any, shown: Callable[[float], str], ticks: int = 5) -> None:
    """Few ticks, written as people write them."""
    axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def legend(axes: Axes) -> None:
    """A legend above the plot, if it has more than one entry."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        most = max(1, 44 // (max(map(len, labels)) + 4))  # columns that find room
        columns = math.ceil(len(labels) / math.ceil(len(labels) / most))
        axes.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns)


def rows(axes: Axes, names: Sequence[str]) -> None:
    """One row for each name, the first on top."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)


def boxes(axes: Axes, corners: Sequence[tuple[float, float, float, float]], **style: Any) -> None:
    """Rectangles (left, bottom, right, top) of one style as one outline: small in a page."""
    if not corners:
        return
    outlines = [
        Outline(np.array([(a, b), (c, b), (c, d), (a, d), (a, b)]), closed=True)
        for a, b, c, d in corners
    ]
    axes.add_patch(PathPatch(Outline.make_compound_path(*outlines), linewidth=0, **style))
    axes.autoscale_view()


def tall(count: int) -> float:
    """The height in inches of a plot with so many rows."""
    return 0.75 + max(2, count) * (0.2 if count <= MANY else 0.15)


def thinned(names: Sequence[str]) -> list[str]:
    """At most SHOWN of the names, evenly chosen, the first and the last among them."""
    if len(names) <= SHOWN:
        return list(names)
    return [names[round(place * (len(names) - 1) / (SHOWN - 1))] for place in range(SHOWN)]


def left_out(clients: Mapping[str, object]) -> str:
    """A caption's sentence on clients that are not shown; empty if all are."""
    return f" {SHOWN} of {len(clients):,} clients are shown." if len(clients) > SHOWN else ""


def dots(count: int) -> float:
    """The size of a line's dots, if it has so many."""
    return 4 if count <= MANY else 2
