"""A TCP proxy that delays, resets and cuts off what passes: a bad network on one machine."""

import asyncio
import contextlib
import math
import random
import socket
import struct
import time
from dataclasses import dataclass

CHUNK = 2**16


@dataclass(frozen=True)
class Weather:
    """What happens to connections.

    delay: seconds by which each piece of data comes later. up, down: bytes a second of a way.
    reset: how often, by piece, a connection ends at once; cut: or after half of the piece.
    faults: of the last two, at most so many.
    """

    delay: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    faults: int = 0
    up: float = math.inf
    down: float = math.inf


class Proxy:
    """Passes on what comes to one port of this machine to another, as the weather lets it.

    said: a file in which each fault is a line. visits: one in which each connection has its time.
    """

    def __init__(
        self, port: int, target: int, weather: Weather, seed: int, said: str, visits: str
    ) -> None:
        self._port, self._target, self._weather = port, target, weather
        self._draw, self._said, self._visits = random.Random(seed), said, visits
        self._left = weather.faults

    async def run(self) -> None:
        """Work until the process ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        await server.serve_forever()

    async def _accept(self, silo: asyncio.StreamReader, to_silo: asyncio.StreamWriter) -> None:
        with open(self._visits, "a") as file:
            file.write(f"{time.time()}\n")
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(to_silo)
            return
        both = (to_silo, to_server)
        await asyncio.gather(
            self._pass(silo, to_server, both, "up"), self._pass(server, to_silo, both, "down")
        )

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...],
        way: str,
    ) -> None:
        rate = self._weather.up if way == "up" else self._weather.down
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await asyncio.sleep(self._weather.delay + len(data) / rate)
                fault = self._fault()
                if fault == "cut":
                    target.write(data[: len(data) // 2])
                    await target.drain()
                if fault:
                    with open(self._said, "a") as file:
                        file.write(f"{fault} {way}\n")
                    break
                target.write(data)
                await target.drain()
        for writer in both:
            _reset(writer)

    def _fault(self) -> str:
        drawn = self._draw.random()
        weather = self._weather
        fault = "reset" if drawn < weather.reset else "cut"
        if not self._left or drawn >= weather.reset + weather.cut:
            return ""
        self._left -= 1
        return fault


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the other side sees a reset."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
