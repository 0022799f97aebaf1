"""What the client half and the server half of an algorithm may use."""

from dataclasses import dataclass
from typing import Any

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import ClientProfile
from hanse.randomness import RoundContext


@dataclass
class Client:
    """The client of one request. `memory` lasts between rounds; `session` is never on disk."""

    profile: ClientProfile
    learner: Learner
    memory: Memory
    session: dict[str, Any]
    context: RoundContext


@dataclass
class Server:
    """The server of one round."""

    learner: Learner
    num_clients: int
    context: RoundContext
