"""Tables of plans: each row has its cells, and a row that never gets there says so."""

from itertools import pairwise
from typing import Any

import plan_tables

Row = dict[str, Any]
SCORED = {"accuracy": 0.6, "over_seeds": [0.5, 0.7], "rounds": 20, "test_items": 9}
TIMED: Row = {"runs": [{"seconds": [1.0]}, {"seconds": [1.0]}]}
SILO = {"form": "nf4", "matrices": 3, "ranks": 12, "seconds": 1.5, "memory": 1e9, "bytes": 2e6}


def same_cells(lines: list[str]) -> None:
    for line, below in pairwise(lines):
        if line.startswith("|") and below.startswith("|"):
            assert line.count("|") == below.count("|"), below


def test_rows_of_equal_time_and_the_first_seeds_plan() -> None:
    rows = {
        "base": {**SCORED, "rounds": 1, "until": [None, None], "runs": 2 * [{"seconds": None}]},
        "uniform": {**SCORED, **TIMED, "until": [1.0, 0.9]},
        "planned": {**SCORED, **TIMED, "until": [0.4, 0.31]},
        "held": {**SCORED, **TIMED, "until": [None, 0.5], "ahead": [0.01, 0.0, 0.02]},
        "wild": {"no_result": "diverged"},
    }
    plans = {"1": {"limit": 40.0, "matrices": 8, "silos": {"a": SILO}}}
    families = {"LoRA": {"rate": 0.001, "tried": {"0.0003": 0.5, "0.001": 0.7, "0.003": 0.6}}}
    protocol = {"seeds": [1, 2], "deals": [101]}
    lines = plan_tables.planned(
        {"rows": rows, "plans": plans, "families": families, "protocol": protocol}
    )
    same_cells(lines)
    assert lines[2].endswith("| 1 |  |")
    assert lines[3].endswith("| 20 | 100 %, 90 % |")
    assert lines[4].endswith("| 20 | 40 %, 31 % |")
    assert lines[5].endswith("| +1.0 (+0.0 to +2.0) | 20 | never, 50 % |")
    assert "| a | nf4 | 3 of 8 | 12 | 1.50 | 1.00 GB | 2.00 MB |" in lines
    assert "The plan of seed 1, beside a uniform round of 2.00 s:" in lines


def test_predicted_steps() -> None:
    row = {"probes": 8, "error": 0.07, "largest_error": 0.2, "order": 0.98, "steps": [1, 2]}
    models = {"it": {**row, "least_memory": 0.97, "largest_memory": 1.15}}
    lines = plan_tables.step_prediction({"models": models})
    same_cells(lines)
    assert lines[2] == "| it | 8 | 7 %; 20 % | 0.98 | 0.97 to 1.15 |"


def test_planned_memory_names_refused_sizes() -> None:
    silo = {"form": "nf4", "matrices": 3, "ranks": 12, "expected": 1.5e9, "peak": 1.25e9}
    row = {"seconds": 42.2, "silos": {"a": {**silo, "expected_over_peak": 1.2, "loading": 1e9}}}
    lines = plan_tables.planned_memory({"rows": {"1": {"refused": "no"}, "2": row}})
    same_cells(lines)
    assert lines[2].startswith("| 1 | | refused |")
    assert lines[3] == "| 2 | a | nf4 | 3; 12 | 1.50 | 1.25 | 1.20 | 1.00 | 42 |"
