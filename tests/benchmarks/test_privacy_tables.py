"""The tables and the figure of what privacy costs."""

from typing import Any

import plots
import privacy_tables
from matplotlib.figure import Figure

Row = dict[str, Any]


def row(accuracy: float, noise: float | None, ahead: float | None = None) -> Row:
    bounds = None if ahead is None else [ahead, ahead - 0.01, ahead + 0.01]
    beside = {} if bounds is None else {"ahead": bounds, "ahead_by_seed": bounds}
    standing = {"accuracy": accuracy, "seeds": [accuracy, accuracy], "over_seeds": [0.6, 0.8]}
    runs = [{"noise_multiplier": noise}] * 2
    return {**standing, "test_loss": 0.5, "test_items": 1000, "runs": runs, **beside}


def result(rows: Row) -> Row:
    families = {"silos": {"rate": 0.003, "tried": {"0.001": 0.5, "0.003": 0.6, "0.01": 0.5}}}
    return {"protocol": {"seeds": [1, 2], "deals": [101]}, "families": families, "rows": rows}


PRICE = {
    "base": row(0.5, None, -0.2),
    "100 silos, no noise": row(0.7, None),
    "100 silos, ε 16": {"no_result": "diverged on one of the deals"},
    "100 silos, ε 8": row(0.68, 1.9, -0.02),
    "100 silos, ε 2": row(0.6, 6.1, -0.1),
}


def test_each_row_says_noise_accuracy_and_the_difference() -> None:
    lines = privacy_tables.privacy_price(result(PRICE))
    assert lines[3] == "| 100 silos, no noise | — | 70.0 % (60.0 to 80.0) | 0.5000 |  |"
    assert lines[4] == "| 100 silos, ε 16 | | no result: diverged on one of the deals | | |"
    assert "| 1.90 | 68.0 % (60.0 to 80.0) | 0.5000 | -2.0 (-3.0 to -1.0); -2.0" in lines[5]
    assert lines[-1].startswith("Means over seeds 1, 2; 1,000 test reviews")
    assert "silos 0.003 (tried 0.001 to 0.01)" in lines[-1]
    assert len({line.count("|") for line in lines[:-2]}) == 1


def test_rows_of_hidden_reviews_are_named_by_their_budget() -> None:
    rows = {"base": row(0.5, None), "none": row(0.7, None), "8": row(0.69, 0.8, -0.01)}
    lines = privacy_tables.row_privacy(result(rows))
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| base", "| none", "| ε 8"]


def test_the_figure_has_a_curve_for_each_way_to_hide() -> None:
    plot = plots.privacy({"privacy_price": PRICE})
    axes = Figure().subplots()
    plot.paint(axes)
    [curve] = [line for line in axes.get_lines() if line.get_label() == "100 silos"]
    assert list(curve.get_ydata()) == [60.0, 68.0]  # by ε; one that diverged has no point
