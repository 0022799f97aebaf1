"""The report of a ladder: does federation pay?"""

from pathlib import Path

from hanse import atomic_files
from hanse.reports import plotting
from hanse.reports.baselines import plots as ladder_plots
from hanse.reports.baselines.baselines_data import own_scores, read
from hanse.reports.html import render


def write_ladder_report(folder: Path) -> Path:
    """Write report.html and plots/ into a ladder's folder, which may be in progress; the file.

    Raises UserError if its figures cannot be read.
    """
    ladder = read(folder)
    pairs = own_scores(folder, ladder)
    plots = [ladder_plots.scores(ladder), ladder_plots.gains(ladder)]
    plots.append(ladder_plots.own(ladder, pairs))
    pictures = {plot.name: plotting.draw(plot) for plot in plots if plot}
    if pictures:
        plotting.keep(pictures.values(), folder / "plots")
    runs = {outcome.run for rung in ladder.rungs for outcome in rung.seeds}
    page = render(
        "baselines/baselines",
        ladder=ladder,
        folder=str(folder),
        pictures=pictures,
        shown=ladder_plots.SHOWN,
        reported={run for run in runs if (folder / run / "report.html").is_file()},
        settings=_text(folder / "ladder.yaml"),
    )
    atomic_files.write(folder / "report.html", page)
    return folder / "report.html"


def _text(file: Path) -> str:
    """A file's text; "" if it is not there."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
