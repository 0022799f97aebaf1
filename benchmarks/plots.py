"""Draw the figures of README and guides, from benchmarks/results/*.json and the demo's last run."""

import json
import sys
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from measured import ROOT, results

from hanse.report import figure
from hanse.report.drawing import GREY, Plot, draw, legend


def cohorts(cases: list[dict[str, Any]]) -> Plot:
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

    return Plot("cohorts", "", "", paint, [2.0] * len(shapes))


if __name__ == "__main__":
    if results("cohorts").exists():
        picture = draw(cohorts(json.loads(results("cohorts").read_text())["cases"]))
        (ROOT / "docs" / "cohorts.svg").write_bytes(picture.svg)
        sys.stdout.write("docs/cohorts.svg drawn\n")
    if (demo := ROOT / "runs" / "quickstart").exists():
        figure(demo, ROOT / "docs" / "quickstart.svg")
        sys.stdout.write("docs/quickstart.svg drawn\n")
