"""Tables of docs/secure-sums.md from results: lines of Markdown."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
EXCHANGES = {"mean, with kits": 1, "mean, with kits and agreement": 2, "secagg": 5}
STEPS = {
    "": "",
    "shares": "after its keys were sent",
    "train": "after its shares were sent, before its update",
    "survivors": "after its masked update was sent",
    "unmask": "after it signed the list of survivors",
}


def secagg(result: Row) -> list[str]:
    """Bytes, seconds, killed silos and accuracy of secure sums, as far as they are measured."""
    parts: dict[str, Callable[[Row], list[str]]] = {
        "costs": _costs,
        "graphs": _graphs,
        "flower": _flower,
        "killed": _killed,
        "quality": _quality,
    }
    tables = [table(result[part]) for part, table in parts.items() if part in result]
    return [line for table in tables for line in ([""] if table is not tables[0] else []) + table]


def _costs(rows: Row) -> list[str]:
    """One silo and round of the plain mean and of secure sums among all others."""
    plain, masked = rows["mean"], rows["secagg"]
    down, up = ([_bytes(row, way) for row in (plain, masked)] for way in ("down", "up"))
    both = [sum(pair) for pair in zip(down, up, strict=True)]
    cpu = masked["cpu_seconds"]
    steps = ", ".join(f"{kind} {1000 * s:.1f}" for kind, s in cpu["protocol_by_kind"].items())
    silos, most = masked["silos"], 1000 * cpu["protocol_most_of_any_silo"]
    answers = [1000 * row["cpu_seconds"]["answers"] for row in (plain, masked)]
    servers = [row["cpu_seconds"]["server"] for row in (plain, masked)]
    return [
        f"| {silos} silos, each with all others; an adapter of "
        f"{masked['adapter_bytes'] / 1e6:.1f} MB; of a silo and round | mean | secagg "
        "| secagg ÷ mean |",
        "|---|---|---|---|",
        *(
            f"| bytes {way} | {a:,.0f} | {b:,.0f} | {b / a:.3f} |"
            for way, (a, b) in {"down": down, "up": up, "together": both}.items()
        ),
        f"| CPU ms of a silo in the protocol | | {1000 * cpu['protocol']:.0f} | |",
        f"| with its messages, without training | {answers[0]:.0f} | {answers[1]:.0f} | |",
        f"| CPU s of the server in a round | {servers[0]:.2f} | {servers[1]:.2f} | |",
        "",
        f"CPU ms by exchange: {steps}; {most:.0f} in all for the slowest silo.",
    ]


def _graphs(rows: Row) -> list[str]:
    """Bytes beyond the plain mean, by the number of silos."""
    lines = [
        "| silos | each shares with | t | bytes beyond the mean, of a silo and round "
        "| ÷ those others | CPU ms of a silo | CPU s of the server |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        if row["rule"] != "secagg":
            continue
        plain = rows[f"{row['silos']}, mean"]
        extra = sum(_bytes(row, way) - _bytes(plain, way) for way in ("down", "up"))
        cpu, whole = row["cpu_seconds"], "all " if row["complete"] else ""
        lines.append(
            f"| {row['silos']} | {whole}{row['neighbours']} | {row['threshold']} | {extra:,.0f} "
            f"| {extra / row['neighbours']:,.0f} | {1000 * cpu['protocol']:.0f} "
            f"| {cpu['server']:.1f} |"
        )
    return lines


def _flower(rows: Row) -> list[str]:
    """Seconds of a round over Flower."""
    some = next(iter(rows.values()))
    lines = [
        f"| {some['silos']} silos over Flower, on one machine | exchanges | seconds of a round "
        "| of each exchange |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        each = ", ".join(f"{kind} {s:.1f}" for kind, s in row["seconds_by_exchange"].items())
        lines.append(f"| {name} | {EXCHANGES[name]} | {row['seconds_a_round']:.1f} | {each} |")
    return [*lines, "", f"Medians of at least {min(r['rounds'] for r in rows.values())} rounds."]


def _killed(result: Row) -> list[str]:
    """What killed silos left of each round."""
    lines = [
        f"| {result['silos']} silos, of which {result['threshold']} must answer: killed | when "
        "| updates in the sum | largest difference to their mean | rounding of the grid, at most |",
        "|---|---|---|---|---|",
    ]
    for row in result["rounds"]:
        paused = "; paused, and repeated when they were back" if row["paused"] else ""
        lines.append(
            f"| {row['killed']} | {STEPS[row['step']]}{paused} | {row['counted']} "
            f"| {row['difference']:.1e} | {row['rounding']:.1e} |"
        )
    end = "the same adapter, bit for bit," if result["same"] else "another adapter"
    return [
        *lines,
        "",
        f"One run of {len(result['rounds'])} rounds over Flower, each silo a process; "
        f"{result['killed']} were killed with SIGKILL, and started again after the round. It ends "
        f"in {end} as the run in one process with the same updates in each round.",
    ]


def _quality(result: Row) -> list[str]:
    """Accuracy with and without secure sums."""
    plain, masked = (100 * result[rule]["accuracy"] for rule in ("mean", "secagg"))
    interval = "no interval"
    if bounds := result["ahead"]["by_item"]:  # None if no review changes
        interval = "{1:+.2f} to {2:+.2f}, paired over reviews".format(*(100 * b for b in bounds))
    return [
        f"`{result['experiment']}` on {len(result['mean']['seeds'])} seeds, "
        f"{result['mean']['test_items']:,} test reviews: {plain:.1f} % by the mean, {masked:.1f} % "
        f"by secagg, a difference of {masked - plain:+.2f} points ({interval}); "
        f"{result['changed']} answers differ. The grid's step is {result['step']:.1e}; "
        f"{result['clipped']:,.0f} numbers were cut.",
    ]


def _bytes(row: Row, way: str) -> float:
    """Bytes of a silo and round in one direction."""
    return float(sum(both[way] for both in row["bytes"].values()))
