"""Tables of a model's owner: docs/offsite-tuning.md and docs/prove-ownership.md, as Markdown."""

import statistics
from typing import Any

from cells import counted, points, rates, standing

Row = dict[str, Any]


def offsite(result: Row) -> list[str]:
    """Emulators and plugged-in models beside ordinary training: accuracy, loss, differences."""
    rows: dict[str, Row] = result["rows"]
    others = ("over_base", "over_emulator", "over_partial", "over_full")
    lines = [
        "| | accuracy, over seeds | loss | ahead of the base in points, over reviews; over seeds | "
        "of its emulator | of ordinary training of the same layers | of all layers |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "runs" not in row:
            lines.append(f"| {name} | no result: {row['no_result']} | | | | | |")
            continue
        cells = [_ahead(row.get(other)) for other in others]
        lines.append(f"| {name} | {standing(row)} | {row['loss']:.3f} | {' | '.join(cells)} |")
    some = [row for row in rows.values() if "runs" in row]
    closing = f"{counted(result, some)} Intervals of 95 %. {rates(result)}"
    return [*lines, "", closing, "", *_emulators(result)]


def _emulators(result: Row) -> list[str]:
    """Emulators as they were made: layers, distance, losses of distillation."""
    lines = [
        "| emulator | layers | middle's distance ‖W − Ŵ‖/‖W‖ | steps of distillation | LM loss, "
        "first and last step | state loss, first and last step |",
        "|---|---|---|---|---|---|",
    ]
    for name, record in result["emulators"].items():
        found = record["distillation"]
        losses = [
            f"{found['first'][kind]:.2f}, {found['last'][kind]:.2f}" if found else "—"
            for kind in ("lm", "kd")
        ]
        steps = found["settings"]["steps"] if found else "—"
        distance = f"{record['middle_error']:.2g}"
        lines.append(
            f"| {name} | {len(record['layers'])} of {record['source']['layers']} | {distance} | "
            f"{steps} | {' | '.join(losses)} |"
        )
    return lines


def emulator_costs(result: Row) -> list[str]:
    """Seconds and memory of a step, the whole model's over each emulator's."""
    lines = [
        "| | layers | seconds of a step | whole ÷ it | memory at the peak, MB | whole ÷ it |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["models"].items():
        seconds = statistics.median(row["step_seconds"])
        lines.append(
            f"| {name} | {row['layers']} | {seconds:.2f} | {row['faster']:.2f} | "
            f"{row['peak_bytes'] / 1e6:,.0f} | {row['smaller']:.2f} |"
        )
    time, memory = result["seconds"], result["peak_bytes"]
    return [
        *lines,
        "",
        f"Batches of {result['batch']}. By the straight line through the whole model and the layer "
        f"drops a layer costs {time['layer']:.3f} s and {memory['layer'] / 1e6:,.0f} MB, all else "
        f"{time['beside']:.2f} s and {memory['beside'] / 1e6:,.0f} MB; OPT-1.3B's 24 layers over "
        f"the 12 of its emulator would be {time['ratio_24_to_12']:.1f} times the time and "
        f"{memory['ratio_24_to_12']:.1f} times the memory, if their sizes were these.",
    ]


def emulator_alone(result: Row) -> list[str]:
    """Perplexity of each emulator by itself, as it comes and after a silo's own training."""
    rows: dict[str, Row] = result["rows"]
    lines = [
        "| | perplexity | × the whole model's | loss, over reviews | after the silo's training | "
        "× the whole model's as it comes | loss, over seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if name.endswith(", trained on") or "loss" not in row:
            continue
        after = rows.get(f"{name}, trained on", {})
        lines.append(f"| {name} | {_perplexity(row, 'over_items')} | {_after(after)} |")
    some = next(row for row in rows.values() if "loss" in row)
    tried = [float(rate) for rate in result["rate"]["tried"]]
    return [
        *lines,
        "",
        f"{some['test_items']:,} texts, the same for all; seeds "
        f"{', '.join(map(str, result['protocol']['seeds']))}. Learning rate "
        f"{result['rate']['rate']:g} (tried {min(tried):g} to {max(tried):g}), by the validation "
        f"loss of {result['rate']['judge']}. Intervals of 95 %.",
    ]


def ownership(result: Row) -> list[str]:
    """Marks after each kind of run: right bits, prompts, what they cost in accuracy."""
    rows: dict[str, Row] = result["rows"]
    lines = [
        "| | keys | right bits, over keys | lowest | proved | accuracy, over seeds | ahead of the "
        "unmarked run in points, over reviews; over seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "rate" not in row or "bound" in row:
            continue
        ahead = "; ".join(filter(None, map(points, (row.get("ahead"), row.get("ahead_by_seed")))))
        lines.append(f"| {name} | {_found(row)} | {standing(row)} | {ahead} |")
        parts = {
            "its prompts": row.get("prompts"),
            "the rider's own key": row.get("rider"),
            **row.get("survives", {}),
        }
        lines += [f"| … {part} | {_found(own)} | | |" for part, own in parts.items() if own]
    some = [row for row in rows.values() if "runs" in row]
    closing = f"{counted(result, some)} Intervals of 95 %."
    if "strangers" in result:
        closing += f" {_strangers(result['strangers'])}"
    return [*lines, "", closing, "", *_capacity(result)]


def _capacity(result: Row) -> list[str]:
    """Marks of more bits than a tensor carries, beside the theorem's bound."""
    lines = [
        "| bits of all keys | channels | bound | right bits, over keys | lowest |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"].values():
        if "bound" in row:
            total = row["bits"] * result["protocol"]["silos"]
            lines.append(
                f"| {total:,} | {row['channels']:,} | {100 * row['bound']:.1f} % | "
                f"{_share(row)} | {100 * row['lowest']:.1f} % |"
            )
    return lines


def _ahead(found: Row | None) -> str:
    if not found:
        return ""
    return "; ".join(filter(None, (points(found["by_item"]), points(found["by_seed"]))))


def _perplexity(row: Row, over: str) -> str:
    interval = row[over]
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{row['perplexity']:,.1f} | {row['times_whole']:.2f} | {row['loss']:.3f}{spread}"


def _after(row: Row) -> str:
    return _perplexity(row, "over_seeds") if "loss" in row else "| | "


def _share(row: Row) -> str:
    interval = row["over_keys"]
    spread = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * row['rate']:.1f} %{spread}"


def _found(row: Row) -> str:
    proved = f"{row['proved']} of {row['keys']}"
    return f"{row['keys']} | {_share(row)} | {100 * row['lowest']:.1f} % | {proved}"


def _strangers(row: Row) -> str:
    whole = row["whole_keys"]
    return (
        f"{row['verified']:,} of {row['keys']:,} keys that were never used verify on a marked "
        f"adapter (95 % bound {row['bound_95']:.0e}); {whole['keys']:,} of them, with directions "
        f"of their own, have {100 * whole['rate']:.1f} % right bits."
        if row["bound_95"]
        else f"{row['verified']:,} of {row['keys']:,} keys that were never used verify."
    )
