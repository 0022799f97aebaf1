"""A server and its silos in one process: the whole server, and real silo workers behind its engine.

Flower alone is missing. All bytes that would cross the network are kept.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from hanse.deployment.envelopes import HELLO, Envelope
from hanse.deployment.server import serve
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.deployment.sockets import Frame
from hanse.experiment.schema import Experiment

TRUSTING = {"data_settings": ("template", "labels"), "count_rounding": 1, "min_examples": 1}


def silo(
    name: str, rows: Path, state: Path, model: Path | None = None, **policy: object
) -> SiloWorker:
    """A silo's worker without keys, whose policy lets a deployed run be the simulated one."""
    place = Rows(path=str(rows), public=str(rows))
    allowed = Policy(**TRUSTING | policy)  # type: ignore[arg-type]
    return SiloWorker(
        SiloSettings(
            name=name,
            server="127.0.0.1:1",
            data=place,
            state=state,
            model=model and str(model),
            policy=allowed,
        )
    )


class WorkerEngine:
    """Passes bytes to silo workers of this process.

    sent: every message that is not a hello, with the name of its silo. replies: their replies.
    before: is called before each message, and may put another worker in a silo's place.
    most: messages, after which the run counts as stuck.
    """

    most = 1000

    def __init__(self, *workers: SiloWorker) -> None:
        self.workers = dict(enumerate(workers, 1))
        self.sent: list[tuple[str, bytes]] = []
        self.replies: list[bytes] = []
        self.before: Callable[[str, bytes], None] = lambda name, request: None
        self._events: deque[Frame] = deque()
        self.begin()

    def begin(self) -> None:
        """Forget what is under way, and name the nodes to a server, as to one that has started."""
        self._events = deque([({"is": "nodes", "nodes": [*self.workers]}, b"")])

    def restart(self, name: str) -> None:
        """Put a new worker in the place of a silo's, as after kill -9: at another node."""
        [node] = [n for n, worker in self.workers.items() if worker.silo.name == name]
        old = self.workers.pop(node)
        self.workers[node + 100] = SiloWorker(old.silo)
        self._events.append(({"is": "nodes", "nodes": [*self.workers]}, b""))

    def requests(self, name: str) -> list[bytes]:
        """The requests to a silo, without those for its profile."""
        bodies = [Envelope.parse(body).request for to, body in self.sent if to == name]
        return [body for body in bodies if body]

    def send(self, node: int, ticket: int, body: bytes) -> None:
        assert len(self.sent) < self.most, "the run is stuck"
        if node in self.workers and body != HELLO:
            self.before(self.workers[node].silo.name, Envelope.parse(body).request)
        if node not in self.workers:
            self._events.append(({"is": "failed", "ticket": ticket, "why": "it is gone"}, b""))
            return
        if body != HELLO:
            self.sent.append((self.workers[node].silo.name, body))
        reply = self.workers[node].answer(body)
        self.replies.append(reply)
        self._events.append(({"is": "reply", "ticket": ticket}, reply))

    def event(self, seconds: float) -> Frame | None:
        return self._events.popleft() if self._events else None


def served(experiment: Experiment, engine: WorkerEngine) -> Path:
    """Serve an experiment to the silos of an engine until it is finished; the run folder."""

    @contextmanager
    def own_engine(*_: object) -> Iterator[WorkerEngine]:
        yield engine

    patches = {"_engine": own_engine, "refuse_busy": mock.DEFAULT, "home": mock.DEFAULT}
    with mock.patch.multiple(serve, **patches):
        return serve.serve(experiment, serve.Address())
