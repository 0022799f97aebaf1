"""A transport in which some clients of a simulation send what an attack says.

Each client trains and answers. The replies of the attackers are held back until those of all other
clients are there, since the attackers know these; then their updates are replaced. Size, layout and
finite values are checked at the server as those of any client.
"""

import logging
from collections import deque
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from hanse.audit.attack import Attack, Updates
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.assembly.attack import build_attack
from hanse.federation.exchange.spool import Spool
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Reply
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import Content

log = logging.getLogger(__name__)


class AttackedClients(Transport):
    """Clients of which some are hostile.

    inner: the clients, which answer at once. attackers: the names of the hostile ones.
    All requests are sent before the first reply is read. A round's updates are on disk until the
    attackers read them, as (clients, d) numbers in float64.
    """

    remote = timed = False

    def __init__(
        self, inner: Transport, attack: Attack, attackers: Collection[str], seed: int
    ) -> None:
        self._inner, self._attack, self._attackers, self._seed = inner, attack, attackers, seed
        self._spool = Spool()
        self._round = 0
        self._trained: dict[str, Reply] = {}  # of this round, by client
        self._held: list[str] = []  # attackers whose replies wait
        self._ready: deque[tuple[str, Content]] = deque()

    def profiles(self) -> list[ClientProfile]:
        return self._inner.profiles()

    def send(self, client: str, message: Content) -> None:
        self._inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, Content] | None:
        while not self._ready and (arrived := self._inner.receive(timeout)):
            self._take(*arrived)
        if not self._ready and self._held:
            self._attack_now()
        return self._ready.popleft() if self._ready else None

    def _take(self, client: str, message: Content) -> None:
        """Note a reply; an attacker's update waits, and anything else passes."""
        message = self._spool.keep(message)
        reply = Reply.parse(message)
        if reply.round != self._round:
            self._round, self._trained, self._held = reply.round, {}, []
        if reply.kind == "train" and not reply.error:
            self._trained[client] = reply
            if client in self._attackers:
                self._held.append(client)
                return
        self._ready.append((client, message))

    def _attack_now(self) -> None:
        """Replace the updates of the attackers whose replies wait."""
        names = [profile.name for profile in self.profiles() if profile.name in self._trained]
        own = [name for name in names if name in self._held]
        honest = [name for name in names if name not in self._attackers] or own
        context = RoundContext(self._seed, self._round)
        draws = context.generator(f"attack/{self._attack.name}")
        updates = Updates(
            self._rows(own), self._rows(honest), self._weights(own), self._weights(honest), draws
        )
        rows = self._attack.sent(updates)
        for name, row in zip(own, rows, strict=True):
            reply = self._trained[name]
            update = replace(reply.update, tensors=_tensors(row, reply.update.tensors))
            self._ready.append((name, replace(reply, update=update).pack()))
        self._trained, self._held = {}, []
        log.info("round %d: %s sent what the attack says", self._round, ", ".join(own))

    def _rows(self, names: list[str]) -> Tensor:
        """(clients, d) the updates of these clients."""
        first = self._trained[names[0]].update.tensors
        for name in names:
            tensors = self._trained[name].update.tensors
            if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in first.items()}:
                raise UserError(
                    f"{name} and {names[0]} send updates of different shapes, which an attack "
                    "cannot compare; give all clients the same adapter, or leave attack out."
                )
        return torch.stack([_row(self._trained[name].update.tensors) for name in names])

    def _weights(self, names: list[str]) -> Tensor:
        weights = [self._trained[name].update.weight for name in names]
        return torch.tensor(weights, dtype=torch.float64)


def _row(tensors: Tensors) -> Tensor:
    """(d,) all floating-point numbers of an update, in float64."""
    floats = [tensors[name] for name in sorted(tensors)]
    return torch.cat([t.flatten().double() for t in floats if t.is_floating_point()])


def _tensors(row: Tensor, like: Tensors) -> dict[str, Tensor]:
    """An update with the numbers of a row; tensors of other numbers stay."""
    result, start = {}, 0
    for name in sorted(like):
        tensor = like[name]
        if tensor.is_floating_point():
            own = row[start : start + tensor.numel()].reshape(tensor.shape)
            tensor, start = own.to(tensor.dtype), start + tensor.numel()
        result[name] = tensor
    return {name: result[name] for name in like}


def attacked(simulation: Simulation, clients: Transport) -> Transport:
    """The clients of a simulation, the hostile ones of `attack` among them."""
    experiment = simulation.experiment
    attack = build_attack(experiment)
    if attack is None:
        return clients
    names = attack.names(experiment.participant_names)
    return AttackedClients(clients, attack, names, experiment.seed)
