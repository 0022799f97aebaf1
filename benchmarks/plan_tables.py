"""Tables of docs/plan.md and docs/edge-study.md: plans, and predicted steps, as Markdown."""

from itertools import groupby
from statistics import fmean
from typing import Any

from cells import counted, points, rates, standing

Row = dict[str, Any]


def planned(result: Row) -> list[str]:
    """Rows of equal simulated time, and what the plan of the first seed gives each silo."""
    rows: dict[str, Row] = result["rows"]
    lines = [
        "| | accuracy, over seeds | ahead of uniform in points, over reviews; over seeds | rounds "
        "| as good on validation as uniform in the end after, by seed |",
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


def planned_memory(result: Row) -> list[str]:
    """The memory that plans expect of a silo beside the peak of a process that is this silo."""
    lines = [
        "| memory of each silo, GB | silo | its plan | matrices; sum of ranks | expected, GB "
        "| peak, GB | expected ÷ peak | loading, GB | planning, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, row in result["rows"].items():
        if "refused" in row:
            lines.append(f"| {size} | | refused | | | | | | |")
        for name, own in row.get("silos", {}).items():
            lines.append(
                f"| {size} | {name} | {own['form']} | {own['matrices']}; {own['ranks']} "
                f"| {own['expected'] / 1e9:.2f} | {own['peak'] / 1e9:.2f} "
                f"| {own['expected_over_peak']:.2f} | {own['loading'] / 1e9:.2f} "
                f"| {row['seconds']:.0f} |"
            )
    return lines


def edge(result: Row) -> list[str]:
    """Each family and depth: one of its steps in parts, and the errors of all."""
    lines = [
        "| family | layers | forward, backward, optimizer of its largest step: measured in ms "
        "| predicted | error over its steps, mean; largest |",
        "|---|---|---|---|---|",
    ]
    fitted = [tuple(cell) for cell in result["fitted_to"]]
    unseen = [own for own in result["cells"] if tuple(own["cell"]) not in fitted]
    for (family, depth), group in groupby(unseen, key=lambda own: own["cell"][:2]):
        cells = list(group)
        largest = max(cells, key=lambda own: own["cell"][2] * own["cell"][3])
        errors = [own["error"] for own in cells]
        parts = [
            ", ".join(f"{1e3 * seconds:,.1f}" for seconds in largest[kind].values())
            for kind in ("seconds", "predicted")
        ]
        lines.append(
            f"| {family} | {depth} | {parts[0]} | {parts[1]} "
            f"| {100 * fmean(errors):.0f} %; {100 * max(errors):.0f} % |"
        )
    return [
        *lines,
        "",
        f"Mean error over {len(unseen)} steps {100 * result['error']:.1f} %. Fitted on "
        f"{result['machine']['cores']} cores, one thread: {100 * result['mfu']:.0f} % of a peak of "
        f"{result['peak'] / 1e9:.0f} GFLOP/s, {result['operator_us']:.0f} µs for each operator.",
    ]


def _until(row: Row) -> str:
    """When a row is as good as the uniform one in the end, as a share of that one's time."""
    if all(run["seconds"] is None for run in row["runs"]):
        return ""
    return ", ".join("never" if until is None else f"{100 * until:.0f} %" for until in row["until"])
