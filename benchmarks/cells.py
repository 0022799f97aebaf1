"""Cells of tables: accuracies, intervals, names, and the lines on how they were measured."""

from typing import Any


def standing(kind: dict[str, Any]) -> str:
    """An accuracy with its interval over seeds."""
    interval = kind["over_seeds"]
    spread = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * kind['accuracy']:.1f} %{spread}"


def counted(result: dict[str, Any], some: list[dict[str, Any]]) -> str:
    """On how many reviews, and over which seeds."""
    seeds = result.get("protocol", result)["seeds"]
    items = result.get("test_items") or next(row["test_items"] for row in some)
    named = ", ".join(map(str, seeds))
    return f"Means over seeds {named}; {items:,.0f} test reviews, the same for all."


def rates(result: dict[str, Any]) -> str:
    """How learning rates were chosen, and which they are."""
    if "families" not in result:  # measured by the former protocol
        named = ", ".join(f"{ticked(name)} {rate:g}" for name, rate in result["rates"].items())
        return f"Learning rates, by 500 validation reviews of one seed's deal: {named}."
    found = []
    for name, family in result["families"].items():
        tried = [float(rate) for rate in family["tried"]]
        found.append(f"{name} {family['rate']:g} (tried {min(tried):g} to {max(tried):g})")
    deals = len(result["protocol"]["deals"])
    some = "one further deal" if deals == 1 else f"{deals} further deals"
    return f"Learning rates of families, by validation on {some}: " + ("; ".join(found) + ".")


def points(bounds: list[float] | None) -> str:
    """A difference with its interval, in points; empty without one."""
    if bounds is None:
        return ""
    value, low, high = (100 * bound for bound in bounds)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def ticked(name: str) -> str:
    """The name of a way, the part that users write in backticks."""
    algorithm, *rest = name.split(", ")
    return ", ".join([f"`{algorithm}`", *rest])


def percent(share: float) -> str:
    """Two digits of a share in percent, and no power of ten."""
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"
