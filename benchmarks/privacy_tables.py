"""Tables of docs/privacy.md from results: accuracy by ε, of hidden silos and of hidden rows."""

from typing import Any

from cells import counted, points, rates, standing

Row = dict[str, Any]
EVERY = (
    "Intervals of 95 %: paired over reviews, each a mean over the seeds; over the seeds' "
    "differences (Student's t)."
)


def privacy_price(result: Row) -> list[str]:
    """Client-level privacy: each number of silos with each ε."""
    lines = _lines(result["rows"], "silos, ε of the whole run")
    chosen = rates(result)
    return [*lines, "", f"{counted(result, [result['rows']['base']])} {EVERY} {chosen}"]


def row_privacy(result: Row) -> list[str]:
    """Example-level privacy: four silos with each ε."""
    rows = {f"ε {name}" if name.isdigit() else name: row for name, row in result["rows"].items()}
    lines = _lines(rows, "ε of each silo's rows")
    return [*lines, "", f"{counted(result, [rows['base']])} {EVERY} {rates(result)}"]


def _lines(rows: Row, first: str) -> list[str]:
    return [
        f"| {first} | noise multiplier | accuracy, over seeds | test loss "
        "| ahead of no noise in points, over reviews; over seeds |",
        "|---|---|---|---|---|",
        *(_line(name, row) for name, row in rows.items()),
    ]


def _line(name: str, row: Row) -> str:
    if "no_result" in row:
        return f"| {name} | | no result: {row['no_result']} | | |"
    noise = {run["noise_multiplier"] for run in row["runs"]} - {None}
    shown = f"{max(noise):.2f}" if noise else "—"
    both = "; ".join(filter(None, (points(row.get("ahead")), points(row.get("ahead_by_seed")))))
    return f"| {name} | {shown} | {standing(row)} | {row['test_loss']:.4f} | {both} |"
