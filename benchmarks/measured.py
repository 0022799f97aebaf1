"""Seconds, and results with what they were measured on: machine, versions, command."""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def results(name: str) -> Path:
    """Where results are kept; those of `--short` prove little, and stay out of the repository."""
    folder = ROOT / ("runs/benchmarks" if "--short" in sys.argv else "benchmarks/results")
    return folder / f"{name}.json"


def keep(name: str, values: dict[str, Any]) -> Path:
    """Write the results of a benchmark; the file."""
    command = "python " + shlex.join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    libraries = ("hanse", "torch", "transformers", "peft")
    content = {
        "command": command,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "default"),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": platform.platform(terse=True),
        },
        "versions": {"python": platform.python_version(), **{n: version(n) for n in libraries}},
        **values,
    }
    file = results(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def clock(work: Callable[[], object]) -> float:
    """Seconds of wall clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(base: Sequence[float], own: Sequence[float]) -> float:
    """How many times as fast, the median over repeats that took turns."""
    return statistics.median(one / other for one, other in zip(base, own, strict=True))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
