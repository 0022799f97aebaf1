"""Secure aggregation whose silos and server die, or leave, where a marker file asks for it.

A marker is a file beside a copy of this one: `silo-2.shares.1` concerns that silo's answer to
`shares` in round 1, `server.survivors.3` the server before it asks for `survivors` in round 3. Its
text is `kill`, or `leave` for a refusal, which a simulation can have, too. With `bare`, a silo
sends its words without masks. Each marker works once.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hanse.errors import UserError
from hanse.federation.aggregators.secagg import SESSION, SecAgg
from hanse.federation.interfaces.aggregator import Exchange
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.secure_sums.grid import to_tensors
from hanse.tensors.named import Layout, Tensors

HOME = Path(__file__).parent


@dataclass(frozen=True)
class Leaving(SecAgg):
    """SecAgg that obeys markers."""

    gives: ClassVar[frozenset[str]] = SecAgg.gives

    def aggregate(self, exchange: Exchange) -> Aggregate:
        watched: Any = Watched(exchange)
        return super().aggregate(watched)

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        obey(client.profile.name, kind, client.context.round)
        return super().handle(kind, instruction, client)

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        if obey(client.profile.name, "train", client.context.round) == "bare":
            return to_tensors(client.session[SESSION].terms.grid.encode(summand))
        return super().seal(summand, note, client)


@dataclass
class Watched:
    """A round's exchange, in which the server obeys markers, too."""

    exchange: Exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self.exchange, name)

    def ask(
        self,
        kind: str,
        instructions: Mapping[str, Instruction],
        expected: Mapping[str, Layout],
        patience: float | None = None,
    ) -> Iterator[tuple[ClientProfile, Update]]:
        obey("server", kind, self.exchange.round)
        return self.exchange.ask(kind, instructions, expected, patience)


def obey(who: str, kind: str, round: int) -> str:
    """Die or leave if a marker asks for it; returns the text of another marker."""
    marker = HOME / f"{who}.{kind}.{round}"
    if not marker.exists():
        return ""
    text = marker.read_text()
    marker.unlink()
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "leave":
        raise UserError(f"{who} leaves at {kind}, as a marker asks.")
    return text
