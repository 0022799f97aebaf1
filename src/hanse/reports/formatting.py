"""Figures as text for people: bytes, seconds, counts, scores and their changes."""

import math
import re

LOWER_IS_BETTER = {"loss", "perplexity"}
SHARES = {"accuracy", "exact_match"}  # metrics between 0 and 1 that people read as per cent
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"  # a number stays beside its unit
LONGEST = 240  # characters of a text that a page shows at once


def count(value: float, unit: str = "") -> str:
    """A number with its power of a thousand: 3.2 G, 12.5 M; `unit` follows."""
    powers = ("", "k", "M", "G", "T", "P", "E")
    power = min(len(powers) - 1, int(math.log10(max(1.0, abs(value) * 1.001)) / 3))
    return f"{value / 1000**power:.3g}{NO_BREAK}{powers[power]}{unit}".rstrip()


def bytes_(size: float) -> str:
    """Bytes, in powers of a thousand."""
    return count(size, "B")


def seconds(seconds: float) -> str:
    """Seconds as 0.25 s, 12.3 s, 3 min 20 s or 2 h 5 min."""
    if seconds < 59.95:
        text = f"{round(seconds, 3):.3g} s"
    else:
        minutes, remainder = divmod(round(seconds), 60)
        hours = f"{minutes // 60} h {minutes % 60} min"
        text = f"{minutes} min {remainder} s" if minutes < 60 else hours
    return text.replace(" ", NO_BREAK)


def digits(value: float) -> str:
    """Three digits, as 0.0123, 12.3 or 12300: a large number has no power of ten."""
    return f"{value:.3g}" if value < 999.5 else f"{float(f'{value:.3g}'):.0f}"


def percent(share: float) -> str:
    """A share as per cent, with one digit where that says something."""
    digits = 0 if share >= 0.1 or share == 0 else 1
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def score(value: float, name: str) -> str:
    """A metric's value."""
    text = f"{100 * value:.1f}{NO_BREAK}%" if _share(name) else f"{value:.4g}"
    return text.replace("-", MINUS)


def tick(value: float, name: str) -> str:
    """A metric's value beside an axis."""
    return score(value, name).replace(f".0{NO_BREAK}", NO_BREAK)


def change(value: float, name: str, unit: bool = True) -> str:
    """The change of a metric with its sign, in points or in its own unit."""
    points = f"{NO_BREAK}points" if unit else ""
    text = f"{100 * value:+.1f}{points}" if _share(name) else f"{value:+.3g}"
    return text.replace("-", MINUS)


def step(value: float, name: str) -> str:
    """A change beside an axis."""
    text = change(value, name, unit=False).removesuffix(".0")
    return text if text.strip("+0") else "0"


def interval(low: float, high: float, name: str) -> str:
    """A change's 95 % interval."""
    return f"[{change(low, name, unit=False)}, {change(high, name, unit=False)}]"


def bounds(low: float, high: float, name: str) -> str:
    """A score's 95 % interval."""
    return f"{score(low, name)} to {score(high, name)}"


def label(name: str) -> str:
    """A metric's name in words."""
    return re.sub("_se$", ", standard error", name).replace("_", " ")


def short(text: str, length: int = LONGEST) -> str:
    """A text cut at a word near `length`."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[length // 2 :] else cut}…"


def middle(text: str, length: int) -> str:
    """A name cut in its middle: names of one family differ at their ends."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-(length - 1 - half) :]}"


def lower_is_better(name: str) -> bool:
    """True if a smaller value of the metric is better."""
    return name in LOWER_IS_BETTER or name.endswith("_loss")


def _share(name: str) -> bool:
    return name.removesuffix("_se") in SHARES
