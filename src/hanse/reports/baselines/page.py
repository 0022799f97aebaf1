"""The report of a baseline comparison: does federation pay?"""

from pathlib import Path

from hanse import atomic_files
from hanse.reports import plotting
from hanse.reports.baselines import plots as baselines_plots
from hanse.reports.baselines.baselines_data import own_scores, read, span
from hanse.reports.html import render


def write_baselines_report(folder: Path) -> Path:
    """Write report.html and plots/ for a baseline comparison, finished or not; returns the file.

    Raises UserError if its figures cannot be read.
    """
    baselines = read(folder)
    pairs = own_scores(folder, baselines)
    plots = [baselines_plots.scores(baselines), baselines_plots.gains(baselines)]
    plots.append(baselines_plots.own(baselines, pairs))
    pictures = {plot.name: plotting.draw(plot) for plot in plots if plot}
    if pictures:
        plotting.keep(pictures.values(), folder / "plots")
    runs = {outcome.run for variant in baselines.variants for outcome in variant.seeds}
    page = render(
        "baselines/baselines",
        baselines=baselines,
        spans={line.name: span(baselines, line) for line in baselines.summary},
        folder=str(folder),
        pictures=pictures,
        shown=baselines_plots.SHOWN,
        reported={run for run in runs if (folder / run / "report.html").is_file()},
        settings=_text(folder / "baselines.yaml"),
    )
    atomic_files.write(folder / "report.html", page)
    return folder / "report.html"


def _text(file: Path) -> str:
    """A file's text; "" if it is not there."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
