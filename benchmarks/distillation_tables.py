"""The table of docs/different-models.md from results: what silos and server have learned."""

from typing import Any

from cells import points, rates, standing

Row = dict[str, Any]


def distillation(result: Row) -> list[str]:
    """Each method, and what it must beat: silos' own models, the server's, bytes of a round."""
    rows: dict[str, Row] = result["rows"]
    some = next(row["own"] for row in rows.values() if "own" in row)
    tested = next(row["server"] for row in rows.values() if "server" in row)
    found = rows.get("fedcollm", {}).get("by_distillation")
    both = [points(found[kind]) for kind in ("ahead", "ahead_by_seed")] if found else []
    distilled = (
        " `fedcollm`'s small model at the server is ahead of itself without distillation by "
        f"{both[0]} points over reviews, {both[1]} over seeds."
        if both
        else ""
    )
    return [
        "| | silos' own models | accuracy, over seeds | loss | ahead of each alone in points, over "
        "seeds | server's model | accuracy, over seeds | loss | ahead of its baseline in points, "
        "over reviews; over seeds | KB of a round up, down |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(name, row) for name, row in rows.items()),
        "",
        f"Means over seeds {', '.join(map(str, result['protocol']['seeds']))}. Silos' own models: "
        f"{some['test_items']:,} reviews in all, each scored by the model of the silo that holds "
        f"it, an interval of {_half(some):.1f} points to either side over reviews. Server: the "
        f"same {tested['test_items']:,} reviews for all. Intervals of 95 %. The baseline of "
        "`fedavg`'s small model at the server is none, of other small models `fedavg`, of the "
        f"large model its training on public reviews alone.{distilled} {rates(result)}",
    ]


def _line(name: str, row: Row) -> str:
    if "no_result" in row:
        return f"| {name} | no result: {row['no_result']} | | | | | | | | |"
    own = row.get("own")
    ahead = "; ".join(filter(None, (points(row.get("ahead")), points(row.get("ahead_by_seed")))))
    cells = [
        *((row["at_silos"], standing(own), f"{row['own_loss']:.3f}") if own else ("—", "", "")),
        points(row.get("own_ahead")),
        *_of_server(row),
        ahead,
        _size(row) if row["together"] else "—",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _of_server(row: Row) -> tuple[str, str, str]:
    """The server's model, its accuracy and its loss."""
    if "server" not in row:
        return "—", "", ""
    return row["at_server"], standing(row["server"]), f"{row['test_loss']:.3f}"


def _size(row: Row) -> str:
    return f"{row['up_bytes'] / 1e3:,.1f}, {row['down_bytes'] / 1e3:,.1f}"


def _half(own: Row) -> float:
    """Half the interval over reviews, in points."""
    low, high = own["over_items"]
    return float(50 * (high - low))
