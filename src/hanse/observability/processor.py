"""Processor cores that this process may use, and the threads that compute on them.

Sources: Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst of Linux, proc(5);
the environment variables of libgomp (GCC) and of libomp (LLVM, Intel).
"""

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hanse.observability import kernel_files
from hanse.observability.kernel_files import number, text

# How long a thread of OpenMP stays awake while it waits for the others, before it sleeps: rounds of
# a loop in libgomp, milliseconds in libomp. Their defaults, 300,000 and 200, keep a core busy for
# nothing when other programs run; docs/speed.md has the figures.
SHORT_WAITS = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}
WAIT_POLICY = "OMP_WAIT_POLICY"
NEGLIGIBLE = 1 / 8  # of the cores, busy with the small programs of every machine
SHORTEST = 0.3  # seconds in which the use of the cores can be measured
JIFFIES = os.sysconf("SC_CLK_TCK")  # in a second


@dataclass(frozen=True)
class CoreUse:
    """Seconds on the cores of this process since the machine and the process started.

    at: the time of the measurement.
    busy: of all programs; None if the system does not say it.
    own: of this process.
    """

    at: float
    busy: float | None
    own: float


def shorten_waits() -> None:
    """Let the threads of OpenMP sleep after a short wait, unless the user has chosen otherwise.

    OpenMP reads these environment variables when torch is loaded, so this comes before. Processes
    that this one starts inherit them. Results do not depend on them.
    """
    if WAIT_POLICY not in os.environ:
        for name, value in SHORT_WAITS.items():
            os.environ.setdefault(name, value)


def model_name() -> str:
    """The name of this machine's processor; its architecture if the system does not say it."""
    lines = text(kernel_files.ROOT / "proc" / "cpuinfo").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def allowed_cores() -> int:
    """The cores that this process may use, or a container's share of processor time in cores."""
    return max(1, int(min([len(_cores()), *_quotas()])))


def core_use() -> CoreUse:
    """The use of the cores so far."""
    return CoreUse(time.monotonic(), _busy(), time.process_time())


def other_work(since: CoreUse) -> float | None:
    """The number of cores that other programs have kept busy since a measurement.

    None if the system does not say it, or if the measurement is too short ago.
    """
    now = core_use()
    if now.busy is None or since.busy is None or now.at - since.at < SHORTEST:
        return None
    others = (now.busy - since.busy - (now.own - since.own)) / (now.at - since.at)
    return min(max(others, 0.0), float(len(_cores())))


def fitting_threads(others: float | None) -> int:
    """The number of threads for which there are cores beside the work of other programs."""
    cores = len(_cores())
    taken = others if others is not None and others > cores * NEGLIGIBLE else 0
    return max(1, min(allowed_cores(), round(cores - taken)))


def crowding(threads: int, others: float | None) -> str:
    """A sentence with the setting to change if threads exceed the cores for them; else empty.

    threads: of this process. others: the cores that other programs keep busy; None if not known.
    """
    cores, fitting = allowed_cores(), fitting_threads(others)
    if threads > cores:
        return (
            f"torch computes with {threads} threads, and this process may use "
            f"{_counted(cores)}: set OMP_NUM_THREADS={fitting}"
        )
    if threads > fitting:
        return (
            f"other programs keep {others:.1f} of {_counted(len(_cores()))} busy, and torch "
            f"computes with {threads} threads, which wait for each other: steps may take several "
            f"times as long; set OMP_NUM_THREADS={fitting}, or end other programs"
        )
    return ""


def _counted(cores: int) -> str:
    return f"{cores} core{'' if cores == 1 else 's'}"


def _cores() -> set[int]:
    """The numbers of the cores on which the system lets this process run.

    With OMP_PROC_BIND, OpenMP has bound this thread to one core, and all cores are taken.
    """
    bound = os.environ.get("OMP_PROC_BIND", "false").lower() != "false"
    if hasattr(os, "sched_getaffinity") and not bound:  # not on every system
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quotas() -> Iterator[float]:
    """The processor time that control groups allow, in cores."""
    for folder, version in kernel_files.groups("cpu"):
        if version == 2:
            fields = text(folder / "cpu.max").split()
            quota, period = (int(field) if field.isdecimal() else None for field in fields or "--")
        else:
            quota, period = (number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota and period:
            yield quota / period


def _busy() -> float | None:
    """Seconds in which the cores of this process were busy, the time of niced programs left out.

    The fields of a core are user, nice, system, idle, iowait, irq, softirq, steal, guest, …
    """
    names, total = {f"cpu{core}" for core in _cores()}, None
    for line in text(kernel_files.ROOT / "proc" / "stat").splitlines():
        name, *fields = line.split() or [""]
        if name in names and len(fields) > 7:
            user, _, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total = (total or 0.0) + (user + system + irq + softirq + steal) / JIFFIES
    return total
