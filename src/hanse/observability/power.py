"""Energy that this machine's processors have used, from the counters of RAPL; none on most others.

Source: Documentation/power/powercap/powercap.rst of Linux. The counters are of whole packages, and
so of all programs; since CVE-2020-8694 only root may read them on most systems.
"""

from dataclasses import dataclass
from pathlib import Path

from hanse.observability import kernel_files
from hanse.observability.kernel_files import number, text

SOURCE = "RAPL"
_ZONES = Path("sys", "class", "powercap")


@dataclass(frozen=True)
class EnergyCounter:
    """A package's counter: microjoules used so far, which begin again at 0 after `most`."""

    file: Path
    used: int
    most: int

    def joules_since(self, before: "EnergyCounter") -> float:
        """The joules since an earlier reading; the counter may have begun again once."""
        used = self.used - before.used
        return (used if used >= 0 else used + self.most) / 1e6


def counters() -> tuple[EnergyCounter, ...]:
    """The counters of all packages; empty without any, or without the right to read them."""
    found = []
    for zone in sorted((kernel_files.ROOT / _ZONES).glob("intel-rapl:*")):
        used, most = number(zone / "energy_uj"), number(zone / "max_energy_range_uj")
        if text(zone / "name").startswith("package") and used is not None and most is not None:
            found.append(EnergyCounter(zone / "energy_uj", used, most))
    return tuple(found)


def joules(before: tuple[EnergyCounter, ...], after: tuple[EnergyCounter, ...]) -> float | None:
    """The joules of all packages between two readings; None if one of them read nothing."""
    if not before or [c.file for c in before] != [c.file for c in after]:
        return None
    return sum(now.joules_since(then) for then, now in zip(before, after, strict=True))
