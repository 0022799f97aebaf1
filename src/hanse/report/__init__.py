"""The pages that show a run, a ladder or several runs, each one file, made from folders alone."""

from hanse.report.comparison import compare
from hanse.report.comparison_page import table, write_comparison
from hanse.report.ladder_page import write_ladder_report
from hanse.report.run_page import figure, write_report

__all__ = ["compare", "figure", "table", "write_comparison", "write_ladder_report", "write_report"]
