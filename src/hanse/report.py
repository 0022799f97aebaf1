"""The report of a run: one HTML file that needs nothing else."""

from pathlib import Path

from hanse import storage


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder from its journal; the file."""
    storage.write(folder / "report.html", b"<html></html>")
    return folder / "report.html"
