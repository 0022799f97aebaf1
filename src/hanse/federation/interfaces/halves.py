"""Records that the client half and the server half of an algorithm may use."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.messages import ClientProfile
from hanse.journal.commitments import Commitments
from hanse.randomness import RoundContext
from hanse.security.identity import Identity


@dataclass
class Client:
    """The client of one request. `memory` lasts between rounds; `session` is never on disk.

    identity: its signing key and the other clients' public keys, for an aggregator that declares
        that it needs them; else None.
    files: those of the server's `prepare`, by name.
    request_digest: of the train request that is answered (`request_digest`), for an aggregator that
        declares `agrees`; else empty.
    job: a digest of all that the client takes the job for: in a deployment the run, the experiment
        as the server sent it, and the base model. Clients of one run have the same.
    least_cohort: the fewest clients, this one included, whose sum may contain its update.
    quorum: the fewest clients whose updates the job combines in a round.
    participants: the names of all clients of the job, in the order that all of them know.
    memory_digest: of the memory that it goes on from when it trains; empty if there is none.
    commitments: of each round, to a sum and to the memory behind its update; None: it cannot.
    """

    profile: ClientProfile
    learner: Learner
    memory: Memory
    session: dict[str, Any]
    context: RoundContext
    identity: Identity | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    request_digest: bytes = b""
    job: str = ""
    least_cohort: int = 1
    quorum: int = 1
    participants: Collection[str] = ()
    memory_digest: str = ""
    commitments: Commitments | None = None


@dataclass
class Server:
    """The server of one round. files: those of its `prepare`, by name."""

    learner: Learner
    num_clients: int
    context: RoundContext
    files: Mapping[str, Path] = field(default_factory=dict)
