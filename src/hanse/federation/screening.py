"""Screens of a round's replies: sizes before anything is read, norms against the other clients'.

A client that lies can send a reply that is costly to read, or an update that takes over the mean.
The layout that is due bounds the one, the median of the others' norms the other.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.federation.spool import Spool
from hanse.tensors import low_rank
from hanse.tensors.named import Layout, Tensors, norm
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)

SLACK = 64 * 1024  # bytes of a reply beside its tensors: numbers, names, the text of an error
EACH = 256  # bytes of the header for one tensor, beside its name

Decode = Callable[[str, Tensors], Tensors]
Refuse = Callable[[str, str], None]


def refuse_large(message: bytes, due: Layout) -> None:
    """Raise MessageError for a reply that is larger than one with tensors of this layout.

    Its header, which counts the tensors, is looked at before it is parsed.
    """
    header = SLACK + sum(len(name) + EACH for name in due)
    most = header + sum(tensor.numel() * tensor.element_size() for tensor in due.values())
    if len(message) > most:
        raise MessageError(f"it has {len(message):,} bytes, where at most {most:,} are due")
    told = int.from_bytes(message[:8], "little")
    if told > header:
        raise MessageError(f"its header has {told:,} bytes, where at most {header:,} are due")


@dataclass(frozen=True)
class NormBound:
    """Refuses updates of which a measure is more than `ratio` times the median of the others'.

    Measures are the L2 norm; of LoRA's factors the norm of their products, too, which two factors
    of ordinary norms may exceed; and the numbers that the algorithm calculates with. All updates of
    the round wait on disk until each is measured. A single update has no others, and is not
    bounded.
    """

    ratio: float
    decode: Decode
    algorithm: Algorithm

    def screen(
        self, updates: Iterable[tuple[ClientProfile, Update]], refuse: Refuse
    ) -> Iterator[tuple[ClientProfile, Update]]:
        """The updates within the bound, in their order; `refuse` is told of each other one."""
        measured: dict[str, Mapping[str, float]] = {}
        profiles: dict[str, ClientProfile] = {}
        weights: dict[str, float] = {}
        with Spool() as spool:
            for profile, update in updates:
                measured[profile.name] = self._measures(profile.name, update)
                profiles[profile.name], weights[profile.name] = profile, update.weight
                spool.put(profile.name, Reply(profile.name, "train", 0, update).pack())
                del update  # or it would stay in memory while the next one is read
            reasons = dict(outliers(measured, self.ratio))
            _tell_dominant({name: own for name, own in weights.items() if name not in reasons})
            for name, profile in profiles.items():
                if name in reasons:
                    refuse(name, reasons[name])
                else:
                    yield profile, Reply.parse(spool.take(name)).update

    def _measures(self, client: str, update: Update) -> dict[str, float]:
        tensors = self.decode(client, update.tensors)
        found = {what: norm(own) for what, own in self.algorithm.measured(tensors).items()}
        if self.algorithm.payload == "factors":
            products = map(low_rank.norm, low_rank.layers(tensors).values())
            found["norm of products"] = math.hypot(*products)
        return found | {f"number {name}": update.numbers[name] for name in self.algorithm.numbers}


def _tell_dominant(weights: Mapping[str, float]) -> None:
    """Name a client that outweighs all others: how many examples it has is its own word."""
    heaviest = max(weights, key=weights.__getitem__, default="")
    others = sum(own for name, own in weights.items() if name != heaviest)
    if len(weights) > 2 and weights[heaviest] > others:
        log.warning(
            "the update of %s has the weight %g, and those of all others together %g, so it alone "
            "decides the result; whether it has so many examples is its own word",
            *(heaviest, weights[heaviest], others),
        )


def outliers(
    measured: Mapping[str, Mapping[str, float]], ratio: float
) -> Iterator[tuple[str, str]]:
    """The clients of whom a measure is too large or not finite, each with the reason."""
    for name, measures in measured.items():
        for what, own in measures.items():
            if not math.isfinite(own):
                yield name, f"its {what} is {own:g}"
                break
            others = [found[what] for other, found in measured.items() if other != name]
            finite = [value for value in others if math.isfinite(value)]
            if finite and own > ratio * (middle := median(finite)):
                yield (
                    name,
                    f"its {what} is {own:.3g}, more than {ratio:g} times the others' median of "
                    f"{middle:.3g} (deployment.max_norm_ratio)",
                )
                break
