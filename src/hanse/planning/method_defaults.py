"""Defaults of adapters and algorithms, each with its source: a table that needs no search.

Two kinds of sources are named. A paper's rate is for its own models, optimizer and batches. "here"
is `benchmarks/adapters.py`: the rate of the highest validation accuracy, of two a decade, for a
MiniLM encoder and AdamW on film reviews of four silos. Where both differ, the default is one of
them or lies between.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.errors import UserError
from hanse.registry import suggestion


@dataclass(frozen=True)
class AdapterDefault:
    """The learning rate of AdamW for a kind of adapters, and settings of the adapter."""

    rate: float
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AlgorithmDefault:
    """The settings of an algorithm, which are those that it has if none are given."""

    settings: Mapping[str, Any]
    source: str


LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}

ADAPTERS = {
    "lora": AdapterDefault(
        5e-4,
        "2106.09685, table 9 (RoBERTa: 5e-4); 2305.14314 (all matrices, 2e-4); here 1e-3",
        LORA,
    ),
    "ia3": AdapterDefault(1e-2, "2205.05638 (T-Few, Adafactor: 3e-3); here 3e-2"),
    "houlsby": AdapterDefault(1e-3, "1902.00751 (of 3e-5, 3e-4, 3e-3); here 3e-3"),
    "pfeiffer": AdapterDefault(1e-3, "2005.00247 (1e-4); here 1e-2"),
    "bitfit": AdapterDefault(1e-3, "2106.10199 (of 1e-4 to 1e-3); here 1e-2"),
    "prompt_tuning": AdapterDefault(0.1, "2104.08691 (T5, Adafactor: 0.3); here 0.1"),
    "prefix_tuning": AdapterDefault(0.1, "here 0.1"),
    "p_tuning": AdapterDefault(3e-3, "here 3e-3"),
    "head": AdapterDefault(1e-2, "here 1e-2"),
    "full": AdapterDefault(5e-5, "1810.04805, appendix A.3 (of 2e-5, 3e-5, 5e-5); here 1e-4"),
}

ALGORITHMS = {
    "fedavg": AlgorithmDefault({}, "1602.05629; it has nothing to set"),
    "fedprox": AlgorithmDefault({"mu": 0.01}, "1812.06127 (of 0.001, 0.01, 0.1, 1)"),
    "fedopt": AlgorithmDefault(
        {"optimizer": "adam", "learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
        "2003.00295 (β and τ; the server's rate is one of a grid)",
    ),
}


def rate_of(adapter: str) -> float:
    """The default learning rate of a kind; raises UserError for one that is not in the table."""
    if adapter not in ADAPTERS:
        raise UserError(
            f"the table of defaults has no learning rate for {adapter:.80}"
            f"{suggestion(adapter, ADAPTERS)}, but for {', '.join(ADAPTERS)}; give rates by "
            "--rates, such as --rates 3e-4,1e-3,3e-3."
        )
    return ADAPTERS[adapter].rate


def around(rate: float) -> tuple[float, float, float]:
    """A rate with one below and one above it, half a decade away, of one significant digit each."""
    step = math.sqrt(10)
    return float(f"{rate / step:.0e}"), rate, float(f"{rate * step:.0e}")


def page() -> str:
    """Both tables in Markdown, as docs/search.md has them."""
    adapters = [
        f"| `{name}` | {_shown(own.settings)} | {own.rate:g} | {own.source} |"
        for name, own in ADAPTERS.items()
    ]
    algorithms = [
        f"| `{name}` | {_shown(own.settings)} | {own.source} |" for name, own in ALGORITHMS.items()
    ]
    head = ["| `adapter:` | settings | `train.learning_rate` | source |", "|---|---|---|---|"]
    other = ["| `algorithm:` | settings | source |", "|---|---|---|"]
    return "\n".join([*head, *adapters, "", *other, *algorithms])


def _shown(settings: Mapping[str, Any]) -> str:
    """Settings in Markdown; of those that are not given the adapter's own hold."""
    return ", ".join(f"`{key}: {value}`" for key, value in settings.items()) or "its own"
