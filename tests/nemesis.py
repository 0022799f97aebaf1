"""Faults drawn by seed: processes are killed, stopped and restarted, links are cut and delayed."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos_proxy import Weather
from real_federation import Federation, flower_of

CALM = Weather()


class Nemesis:
    """Makes faults in a federation, one after another, until it is told to stop.

    It yields while time passes, so that one process can tend several federations.
    names: of the silos, each behind a link of its own.
    """

    def __init__(self, made: Federation, names: Sequence[str], seed: int) -> None:
        self.made, self.names = made, names
        self.faults: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._ports: dict[str, int] = {}

    def begin(self) -> None:
        """Start the server, and every silo behind its link."""
        self.made.server()
        for name in self.names:
            self._ports[name] = self.made.proxy(f"link-{name}", CALM)
            self._join(name)

    def strike(self) -> Iterator[None]:
        """Make one fault, and mend it after a while."""
        name, fault = self._draw.choice(
            [
                ("kill the server", self._kill_server),
                ("kill a silo", self._kill_silo),
                ("stop the server", self._stop_server),
                ("stop a silo", self._stop_silo),
                ("kill Flower", self._kill_flower),
                ("cut a link", self._cut_link),
                ("bad weather", self._bad_weather),
            ]
        )
        self.faults[name] += 1
        yield from fault()
        yield from self._pass(0.0, 2.0)

    def _kill_server(self) -> Iterator[None]:
        self.made.kill("server")
        yield from self._pass(0.5, 2.0)
        self.made.server()

    def _kill_silo(self) -> Iterator[None]:
        name = self._draw.choice(self.names)
        self.made.kill(name)
        yield from self._pass(0.5, 3.0)
        self._join(name)

    def _stop_server(self) -> Iterator[None]:
        yield from self._stop("server", self.made.run / "flower")

    def _stop_silo(self) -> Iterator[None]:
        name = self._draw.choice(self.names)
        yield from self._stop(name, self.made.home / name / "flower")

    def _stop(self, name: str, flower: Path) -> Iterator[None]:
        """Let a process, and perhaps all of Flower that it has started, stand still for a while."""
        stopped = [self.made.processes[name].number]
        if self._draw.random() < 0.5:
            stopped += flower_of(flower)
        _send(stopped, signal.SIGSTOP)
        yield from self._pass(0.5, 4.0)
        _send(stopped, signal.SIGCONT)

    def _kill_flower(self) -> Iterator[None]:
        homes = [self.made.run, *(self.made.home / name for name in self.names)]
        found = sorted(flower_of(self._draw.choice(homes) / "flower"))
        _send(self._draw.sample(found, min(1, len(found))), signal.SIGKILL)
        yield

    def _cut_link(self) -> Iterator[None]:
        name = self._draw.choice(self.names)
        self.made.kill(f"link-{name}")
        yield from self._pass(0.5, 4.0)
        self._link(name, CALM)

    def _bad_weather(self) -> Iterator[None]:
        name = self._draw.choice(self.names)
        self.made.kill(f"link-{name}")
        self._link(name, Weather(delay=0.1, reset=0.1, cut=0.1, faults=10))
        yield from self._pass(1.0, 4.0)
        self.made.kill(f"link-{name}")
        self._link(name, CALM)

    def _link(self, name: str, weather: Weather) -> None:
        seed = self._draw.randrange(2**32)
        self.made.proxy(f"link-{name}", weather, seed, self._ports[name])

    def _join(self, name: str) -> None:
        self.made.silo(name, server=f"127.0.0.1:{self._ports[name]}")

    def _pass(self, least: float, most: float) -> Iterator[None]:
        """Yield for some seconds, drawn by seed."""
        end = time.monotonic() + self._draw.uniform(least, most)
        while time.monotonic() < end:
            yield


def _send(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
