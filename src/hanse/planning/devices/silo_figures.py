"""Figures of a silo's machine and of steps on it: numbers in its reply to a probe."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PREFIX = "device_"  # of the numbers' names
MOST_STEPS = 8

# The least and the largest value of each number.
MACHINE = {
    "cores": (1, 1e5),
    "memory_held": (0, 1e15),
    "memory_free": (0, 1e15),
    "float32": (1, 1e20),
    "bfloat16": (1, 1e20),
    "bandwidth": (1, 1e16),
    "layers": (1, 1e4),
    "mean": (1, 1e7),
    "longest": (1, 1e7),
}
STEP = {
    "rows": (1, 1e6),
    "length": (1, 1e7),
    "rank": (1, 65_536),
    "depth": (1, 1e4),
    "seconds": (1e-9, 1e6),
    "kept": (0, 1e15),
    "peak": (0, 1e15),
}


@dataclass(frozen=True)
class StepFigures:
    """A measured step of training: its setting, seconds, and bytes.

    rows, length, rank, depth: as in `StepSetting`. kept: bytes for the backward pass. peak: bytes
    above those before the step; None if the system does not tell.
    """

    rows: float
    length: float
    rank: float
    depth: float
    seconds: float
    kept: float
    peak: float | None = None


@dataclass(frozen=True)
class SiloFigures:
    """A silo's machine with the base model loaded.

    cores: that the silo may use. memory_held, memory_free: bytes of its process, and those left.
    float32, bfloat16: FLOP/s of the fastest matrix products. bandwidth: bytes a second of a copy.
    layers: of the base that gradients may flow through. mean, longest: tokens of its rows.
    steps: those that it has measured.
    """

    cores: float
    memory_held: float
    memory_free: float
    float32: float
    bfloat16: float
    bandwidth: float
    layers: float
    mean: float
    longest: float
    steps: tuple[StepFigures, ...] = ()

    def numbers(self) -> dict[str, float]:
        """The figures by the names under which they leave; unknown ones are left out."""
        found = {PREFIX + name: float(getattr(self, name)) for name in MACHINE}
        for place, step in enumerate(self.steps):
            values = {k: v for k, v in asdict(step).items() if v is not None}
            found |= {f"{PREFIX}step{place}_{name}": float(v) for name, v in values.items()}
        return found

    @staticmethod
    def read(numbers: Mapping[str, float]) -> "SiloFigures | None":
        """The figures among a reply's numbers; None if it has none.

        Raises ValueError with a clause on the first figure that is missing or cannot be.
        """
        if not any(name.startswith(PREFIX) for name in numbers):
            return None
        machine = {name: _figure(numbers, name, *MACHINE[name]) for name in MACHINE}
        steps = []
        for place in range(MOST_STEPS):
            own = f"step{place}_"
            if f"{PREFIX}{own}seconds" not in numbers:
                break
            unknown = {"peak"} - {n for n in STEP if f"{PREFIX}{own}{n}" in numbers}
            known = STEP.keys() - unknown
            step = {n: _figure(numbers, own + n, *STEP[n]) for n in known}
            steps.append(StepFigures(**step))
        if not steps:
            raise ValueError("it tells no measured step")
        return SiloFigures(**machine, steps=tuple(steps))


def _figure(numbers: Mapping[str, float], name: str, least: float, most: float) -> float:
    value = numbers.get(PREFIX + name, math.nan)
    if not least <= value <= most:
        told = "none" if math.isnan(value) else f"{value:g}"
        raise ValueError(f"{name} came as {told}, and is {least:g} to {most:g}")
    return value
