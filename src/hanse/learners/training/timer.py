"""The seconds of each part of training, measured without making a GPU wait, and its energy."""

import time
from collections import defaultdict
from itertools import pairwise

import torch

from hanse.observability import power


class Stopwatch:
    """Seconds by activity; each lap is counted from the end of the one before it.

    On a GPU a lap ends with an event in its stream, which is read only after all laps: reading it
    earlier would stop the host until the GPU has caught up.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._counters = () if self._cuda else power.counters()  # they do not count a GPU's energy
        self._laps = [("", self._event())] if self._cuda else []
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, activity: str) -> None:
        """Count the time since the last lap under this activity."""
        if self._cuda:
            self._laps.append((activity, self._event()))
            return
        now = time.perf_counter()
        self._spent[activity] += now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """The seconds so far by activity; waits for a GPU to finish its work."""
        if self._cuda:
            self._laps[-1][1].synchronize()
            for (_, before), (activity, event) in pairwise(self._laps):
                self._spent[activity] += before.elapsed_time(event) / 1000
            del self._laps[:-1]
        return dict(self._spent)

    def joules(self) -> float | None:
        """The energy so far, of the processors and all their programs; None if nothing tells it."""
        return power.joules(self._counters, power.counters()) if self._counters else None

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
