"""Limits of tests: generous, and longer on a machine that is slow or busy just now."""

import os
import time

QUIET = 0.15  # seconds that the job takes on a quiet core of the machine that limits were set on
VARIABLE = "HANSE_TESTS_SLOWNESS"  # in the environment, for all processes of one test run


def slowness() -> float:
    """How many times as long as on a quiet core a small job takes here; at least 1."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{max(1.0, _job() / QUIET):.2f}"
    return float(os.environ[VARIABLE])


def patience(seconds: float) -> float:
    """The limit on this machine for what may take so many seconds on a quiet one."""
    return seconds * slowness()


def _job() -> float:
    """The seconds that a fixed loop takes."""
    begun, total = time.perf_counter(), 0
    for number in range(4_000_000):
        total += number * number
    return time.perf_counter() - begun
