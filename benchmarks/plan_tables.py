"""Tables of docs/plan.md: plans beside uniform adapters, and predicted steps, as Markdown."""

from typing import Any

from cells import counted, points, rates, standing

Row = dict[str, Any]


def planned(result: Row) -> list[str]:
    """Rows of equal simulated time, and what the plan of the first seed gives each silo."""
    rows: dict[str, Row] = result["rows"]
    lines = [
        "| | accuracy, over seeds | ahead of uniform in points, over reviews; over seeds | rounds "
        "| as good as uniform in the end after, over seeds |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "runs" not in row:
            lines.append(f"| {name} | no result: {row['no_result']} | | | |")
            continue
        ahead = "; ".join(filter(None, map(points, (row.get("ahead"), row.get("ahead_by_seed")))))
        lines.append(
            f"| {name} | {standing(row)} | {ahead} | {row['rounds']:.3g} | {_until(row)} |"
        )
    some = [row for row in rows.values() if "runs" in row]
    seed, plan = next(iter(result["plans"].items()))
    shown = [
        "| silo | trains | matrices | sum of ranks | seconds of a round | memory | sent |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {silo} | {own['form']} | {own['matrices']} of {plan['matrices']} | {own['ranks']} "
            f"| {own['seconds']:.2f} | {own['memory'] / 1e9:.2f} GB | {own['bytes'] / 1e6:.2f} MB |"
            for silo, own in plan["silos"].items()
        ),
    ]
    uniform = plan["limit"] / rows["uniform"]["rounds"]
    return [
        *lines,
        "",
        f"{counted(result, some)} Intervals of 95 %. {rates(result)}",
        "",
        f"The plan of seed {seed}, beside a uniform round of {uniform:.2f} s:",
        "",
        *shown,
    ]


def step_prediction(result: Row) -> list[str]:
    """Predicted steps beside measured ones."""
    lines = [
        "| model | probes | error of seconds, mean; largest | rank correlation | memory, predicted "
        "÷ measured |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["models"].items():
        lines.append(
            f"| {name} | {row['probes']} | {100 * row['error']:.0f} %; "
            f"{100 * row['largest_error']:.0f} % | {row['order']:.2f} | "
            f"{row['least_memory']:.2f} to {row['largest_memory']:.2f} |"
        )
    count = len(next(iter(result["models"].values()))["steps"])
    return [*lines, "", f"{count} settings of each model that were not probed."]


def _until(row: Row) -> str:
    """When a row is as good as the uniform one in the end, as a share of that one's time."""
    if row["until"] is None:
        return f"{row['reached']} of {len(row['runs'])} seeds" if row["rounds"] > 1 else ""
    interval = row["until_by_seed"]
    spread = f" ({100 * interval[1]:.0f} to {100 * interval[2]:.0f})" if interval else ""
    return f"{100 * row['until']:.0f} % of its time{spread}"
