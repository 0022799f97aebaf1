"""Spies in the processes of a federation: what a silo has computed, and a server that stands still.

They are set in a process before it begins, and write into files or look at files.
"""

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hanse.federation import client
from hanse.federation.messages import Update
from hanse.federation.secure_sums.client_half import Participation
from hanse.federation.secure_sums.grid import Grid
from hanse.tensors.named import to_bytes

NEEDLE = 64  # bytes of an update by which it is recognized
NEEDLES = 3  # tensors of an update that are searched for; each search of a process takes a while
STOPS = "stops"  # a file with a regular expression: log lines at which the server stands still


class Spies:
    """Spies on the processes of one federation, by files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, process: str) -> None:
        """Set the spies in this process."""
        if process == "server":
            self._watch_log()
        elif process.startswith("silo"):
            self._watch_silo(process)

    def stop_at(self, pattern: str) -> None:
        """Let the next server stand still, by SIGSTOP, at log lines with this pattern."""
        (self.folder / STOPS).write_text(pattern)

    def needles(self, silo: str, kind: str) -> list[bytes]:
        """Parts of a silo's last update; kind: `update` for its numbers, `words` on the grid."""
        text = (self.folder / f"{silo}.{kind}").read_bytes()[: NEEDLES * NEEDLE]
        return [text[start : start + NEEDLE] for start in range(0, len(text), NEEDLE)]

    def keys(self, silo: str, round: int) -> list[str]:
        """The public keys that a silo has made for a round, in their order."""
        lines = (self.folder / f"{silo}.keys").read_text().splitlines()
        return [keys for number, keys in map(str.split, lines) if int(number) == round]

    def _watch_log(self) -> None:
        file, make = self.folder / STOPS, logging.getLogRecordFactory()
        if not file.exists():
            return
        pattern = re.compile(file.read_text())
        file.unlink()

        def stopping(*about: Any, **more: Any) -> logging.LogRecord:
            record = make(*about, **more)
            if pattern.search(record.getMessage()):
                os.kill(os.getpid(), signal.SIGSTOP)
            return record

        logging.setLogRecordFactory(stopping)

    def _watch_silo(self, name: str) -> None:
        sealed, encode, begin = client._sealed, Grid.encode, Participation.begin

        def sealing(endpoint: Any, request: Any, who: Any, encoded: Update) -> Update:
            self._write(f"{name}.update", [to_bytes(t) for t in encoded.tensors.values()])
            return sealed(endpoint, request, who, encoded)

        def encoding(self: Grid, summand: Any) -> Any:
            words = encode(self, summand)
            own = [value.tobytes() for key, value in words.items() if key[0] != "#"]
            spies._write(f"{name}.words", own)
            return words

        def beginning(who: Any, terms: Any) -> Participation:
            part = begin(who, terms)
            with open(self.folder / f"{name}.keys", "a") as file:
                file.write(f"{terms.round} {part.keys.public.to_bytes().hex()}\n")
            return part

        spies = self
        mock.patch.object(client, "_sealed", sealing).start()
        mock.patch.object(Grid, "encode", encoding).start()
        mock.patch.object(Participation, "begin", staticmethod(beginning)).start()

    def _write(self, name: str, contents: list[bytes]) -> None:
        """Write the first bytes without a zero word of each content, if it is long enough."""
        parts = []
        for content in contents:
            words = np.frombuffer(content, "<u4")
            ends = [
                n for n in range(len(words) - NEEDLE // 4 + 1) if words[n : n + NEEDLE // 4].all()
            ]
            parts += [content[4 * ends[0] : 4 * ends[0] + NEEDLE]] if ends else []
        (self.folder / name).write_bytes(b"".join(parts))
