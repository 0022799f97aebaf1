"""What a baseline comparison's figures say, and no more than they say, in a few words."""

from hanse.journal.ledger import Row

ASKED = {
    "base": "of the base model",
    "alone": "of the silos alone",
    "alone-longer": "of silos alone that train as long as all together",
}
POOLED = {"centralised": "the joint batch", "centralised-small-batch": "a silo's batch"}


def verdict(figures: Row) -> str:
    """One or two sentences: whether federation pays, by the intervals over seeds.

    It pays if it is better than the base model, than the silos alone and than silos alone that
    train as long as all together, each by a difference whose interval is above 0; it does not pay
    if it is worse than one of them by such a difference; everything else is not clear.
    """
    lines = {line["name"]: line for line in figures["summary"]}
    done = f"{figures['done']} of {figures['planned']} variants are done"
    if not {"federated", *ASKED} <= lines.keys():
        return f"Nothing can be said yet: {done}."
    gains = {name: _gain(lines[name]["against_federated"]) for name in ASKED}
    sign = 1 if figures["higher_is_better"] else -1
    value = lines["federated"]["value"]
    against = [f"{lines[n]['value']:.3f} {what} ({_shown(gains[n])})" for n, what in ASKED.items()]
    found = (
        f"{_head(list(gains.values()), sign)}: mean {figures['metric']} {value:.3f} against "
        f"{', '.join(against[:-1])} and {against[-1]}"
    )
    if figures["done"] < figures["planned"]:
        found += f", while {done}"
    pooled = [f"{lines[n]['value']:.3f} with {what}" for n, what in POOLED.items() if n in lines]
    return f"{found}. All rows in one place give {' and '.join(pooled)}." if pooled else f"{found}."


def _gain(difference: Row) -> Row:
    """Federated minus the other, from the other minus federated."""
    value, low, high = 0.0 - difference["value"], difference["low"], difference["high"]
    if low is None or high is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": -high, "high": -low}


def _head(gains: list[Row], sign: int) -> str:
    """The answer; sign: 1 if a higher score is better, else -1."""
    if any(gain["low"] is None for gain in gains):
        return "One seed is too few to say whether federation pays"
    bounds = [sorted((sign * gain["low"], sign * gain["high"])) for gain in gains]
    if all(low > 0 for low, _ in bounds):
        return "Federation pays here"
    if any(high < 0 for _, high in bounds):
        return "Federation does not pay here"
    return "Whether federation pays is not clear here, for a difference's interval includes 0"


def _shown(gain: Row) -> str:
    if gain["low"] is None:
        return f"{gain['value']:+.3f}"
    return f"{gain['value']:+.3f}, 95 % interval {gain['low']:+.3f} to {gain['high']:+.3f}"
