"""Where training's time goes, without making a GPU wait."""

import time
from collections import defaultdict
from itertools import pairwise

import torch


class Stopwatch:
    """Seconds by what was done: each lap is counted from the end of the one before it.

    On a GPU a lap ends with an event in its stream, and is read only when all is done: asking
    earlier would stop the host until the GPU has caught up.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._laps = [("", self._event())] if self._cuda else []
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        """Count the time since the last lap under `what`."""
        if self._cuda:
            self._laps.append((what, self._event()))
            return
        now = time.perf_counter()
        self._spent[what] += now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """What was spent so far; on a GPU this waits until it has done all it was given."""
        if self._cuda:
            self._laps[-1][1].synchronize()
            for (_, before), (what, event) in pairwise(self._laps):
                self._spent[what] += before.elapsed_time(event) / 1000
            del self._laps[:-1]
        return dict(self._spent)

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
