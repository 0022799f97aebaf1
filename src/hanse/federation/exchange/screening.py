"""Bounds on a round's replies: their sizes before parsing, their norms against other clients'.

A malicious client can send a reply that is expensive to read, or an update that dominates the
mean. The expected layout bounds the size, and the median of the other clients' norms the update.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hanse.federation.exchange.spool import Spool, on_disk
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.messages import ClientProfile, Update
from hanse.tensors import low_rank
from hanse.tensors.named import Layout, largest, norm
from hanse.tensors.serialization import Content, MessageError

log = logging.getLogger(__name__)

SLACK = 64 * 1024  # bytes of a reply beside its tensors: numbers, names, an error's text
PER_TENSOR = 256  # bytes of the header for one tensor, beside its name

Refuse = Callable[[str, str], None]


def refuse_large(message: Content, expected: Layout) -> None:
    """Raise MessageError for a reply that is larger than one with tensors of this layout.

    The size of its header is checked before the header is parsed.
    """
    header = SLACK + sum(len(name) + PER_TENSOR for name in expected)
    most = header + sum(t.numel() * t.element_size() for t in map(largest, expected.values()))
    if len(message) > most:
        raise MessageError(f"it has {len(message):,} bytes, where at most {most:,} are due")
    declared = int.from_bytes(message[:8], "little")
    if declared > header:
        raise MessageError(f"its header has {declared:,} bytes, where at most {header:,} are due")


@dataclass(frozen=True)
class NormBound:
    """Refuses an update if one of its measures exceeds `ratio` times the median of the others'.

    The measures are the L2 norm, the numbers that the algorithm calculates with, and for LoRA's
    factors the norm of their products, which may be large although both factors are ordinary. All
    updates of the round wait until each is measured; their tensors are on disk. A single update is
    not bounded.
    """

    ratio: float
    algorithm: Algorithm

    def screen(
        self, updates: Iterable[tuple[ClientProfile, Update]], refuse: Refuse
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The updates within the bound, in their order; `refuse` is called for each other one.

        updates: decoded.
        """
        measured: dict[str, Mapping[str, float]] = {}
        waiting: list[tuple[ClientProfile, Update]] = []
        spool = Spool()
        for profile, update in updates:
            measured[profile.name] = self._measures(update)
            waiting.append((profile, on_disk(update, spool)))
            del update  # or it would stay in memory while the next one is read
        reasons = dict(outliers(measured, self.ratio))
        weights = {profile.name: update.weight for profile, update in waiting}
        _warn_of_dominant({name: w for name, w in weights.items() if name not in reasons})
        for profile, update in waiting:
            if profile.name in reasons:
                refuse(profile.name, reasons[profile.name])
            else:
                yield profile, update

    def _measures(self, update: Update) -> dict[str, float]:
        """The measures of one update, by name."""
        parts = self.algorithm.measured(update.tensors)
        measures = {name: norm(part) for name, part in parts.items()}
        if self.algorithm.payload == "factors":
            products = map(low_rank.norm, low_rank.layers(update.tensors).values())
            measures["norm of products"] = math.hypot(*products)
        numbers = {f"number {name}": update.numbers[name] for name in self.algorithm.numbers}
        return measures | numbers


def _warn_of_dominant(weights: Mapping[str, float]) -> None:
    """Log a client that outweighs all others together; nobody can check its number of examples."""
    heaviest = max(weights, key=weights.__getitem__, default="")
    others = sum(weight for name, weight in weights.items() if name != heaviest)
    if len(weights) > 2 and weights[heaviest] > others:
        log.warning(
            "the update of %s has the weight %g, and those of all others together %g, so it alone "
            "decides the result; whether it has so many examples is its own word",
            *(heaviest, weights[heaviest], others),
        )


def outliers(
    measured: Mapping[str, Mapping[str, float]], ratio: float
) -> Iterator[tuple[str, str]]:
    """The clients with a measure that is too large or not finite, each with the reason."""
    for client, measures in measured.items():
        for measure, value in measures.items():
            others = [known[measure] for other, known in measured.items() if other != client]
            if reason := _excess(value, others, ratio):
                yield client, f"its {measure} is {reason}"
                break


def _excess(value: float, others: Sequence[float], ratio: float) -> str:
    """The reason to refuse a value; empty for an acceptable one."""
    if not math.isfinite(value):
        return f"{value:g}"
    finite = [other for other in others if math.isfinite(other)]
    if not finite or value <= ratio * median(finite):
        return ""
    return (
        f"{value:.3g}, more than {ratio:g} times the others' median of {median(finite):.3g} "
        "(deployment.max_norm_ratio)"
    )
