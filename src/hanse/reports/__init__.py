"""The pages that show a run, a ladder or several runs, each one file, made from folders alone."""

from hanse.reports.baselines.page import write_ladder_report
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import table, write_comparison
from hanse.reports.run.page import figure, write_report

__all__ = ["compare", "figure", "table", "write_comparison", "write_ladder_report", "write_report"]
