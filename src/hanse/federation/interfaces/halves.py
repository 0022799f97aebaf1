"""What the client half and the server half of an algorithm may use."""

from dataclasses import dataclass
from typing import Any

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import ClientProfile
from hanse.randomness import RoundContext
from hanse.security.identity import Identity


@dataclass
class Client:
    """The client of one request. `memory` lasts between rounds; `session` is never on disk.

    identity: its signing key and the other clients' public keys, for an aggregator that declares
        that it needs them; else None.
    """

    profile: ClientProfile
    learner: Learner
    memory: Memory
    session: dict[str, Any]
    context: RoundContext
    identity: Identity | None = None


@dataclass
class Server:
    """The server of one round."""

    learner: Learner
    num_clients: int
    context: RoundContext
