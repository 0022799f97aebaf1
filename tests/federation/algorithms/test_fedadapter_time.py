"""FedAdapter in a budgeted simulator: computed seconds to a target, against fixed settings."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algorithms.test_fedadapter import (
    FAST,
    INNER,
    LAYERS,
    SERVER,
    Growing,
    growing,
    instructed,
    tapped,
)
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.trained_tensors import DEPTH, WIDTH
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers
from toy_learners import Toy
from toys import Meddler, Outcome, federate, held_out, silos

FIXED = [(depth, width) for depth in (1, LAYERS) for width in (2, INNER)]
ROUNDS, STEPS = 40, 4
TARGETS = (0.55, 0.4)  # of the validation loss: all fixed settings reach the first, some the second


class Fixed(Growing):
    """The part of one size, whatever the server asks for."""

    def configure(self, numbers: Numbers) -> None:
        depth, width = self.toy.size  # type: ignore[attr-defined]
        super().configure({DEPTH: depth, WIDTH: width})


@dataclass(frozen=True)
class FixedToy(Toy):
    """Makes `Fixed` learners."""

    size: tuple[int, int] = (1, 1)

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> Fixed:
        return Fixed(self, context, optimizer_state)


def fixed(size: tuple[int, int], folder: Path) -> Outcome:
    """A run that trains one size from the first round on."""
    learners = {n: FixedToy(**vars(growing(toy)), size=size) for n, toy in silos(6).items()}
    server = FixedToy(**vars(growing(held_out())), size=size)
    return federate(FedAvg(), learners, folder, server, rounds=ROUNDS)


def seconds_to(target: float, outcome: Outcome, seconds: Callable[[int], float]) -> float:
    """The seconds until the validation loss is at most the target; infinite if it stays above."""
    total = 0.0
    for record in outcome.records:
        total += seconds(record.round) if record.round else 0.0
        if record.validation["loss"] <= target:
            return total
    return math.inf


def round_seconds(depth: int) -> float:
    """The seconds of a round of this depth; bytes take next to none here."""
    return FAST.seconds(depth, {}, STEPS)


def test_the_target_is_reached_no_later_than_by_the_worst_fixed_setting(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    taps: list[Meddler] = []
    learners = {name: growing(toy) for name, toy in silos(6).items()}
    algorithm, folder = replace(FAST, budget=4.0), tmp_path / "grown"
    settings: dict[str, Any] = {"rounds": ROUNDS, "network": tapped(taps)}
    grown = federate(algorithm, learners, folder, SERVER, **settings)
    deepest = defaultdict[int, int](int)  # of a round, which ends with its slowest group
    for round, depth, _ in instructed(taps):
        deepest[round] = max(deepest[round], depth)
    runs = {size: fixed(size, tmp_path / str(size)) for size in FIXED}
    for target in TARGETS:
        times = [
            seconds_to(target, run, lambda _, depth=depth: round_seconds(depth))  # type: ignore[misc]
            for (depth, _), run in runs.items()
        ]
        own = seconds_to(target, grown, lambda round: round_seconds(deepest[round]))
        record_property(f"seconds to {target}: grown, best and worst fixed", (own, times))
        assert own <= max(times) and math.isfinite(own)
        assert own <= 6 * min(times)
    assert not all(map(math.isfinite, times))
