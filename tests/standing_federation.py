"""A server and three silos, known to each other by keys, that stay up for run after run.

Silos do so anyway. `hanse server` ends with its run; here one process serves experiment after
experiment over one SuperLink, whose nodes therefore stay connected.
"""

import contextlib
import logging
import multiprocessing
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from hanse.deployment.server import serve
from hanse.deployment.server.engine import Engine
from hanse.deployment.sockets import Frame
from hanse.experiment import loading
from hanse.experiment.part_kinds import PART_KINDS, TASK
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.halves import Server
from hanse.federation.interfaces.results import Aggregate, State
from hanse.observability.json_logs import LogFormat
from patience import patience
from real_federation import SILOS, TRUSTING, Federation, federation, free_port

THREE = SILOS[:3]
PARTS = Path(__file__).parent / "parts"
# Parts from outside the package that the silos allow, by the setting of their policy.
OUTSIDE = {
    "algorithms": [
        "layout_plan.py:LayoutPlan",
        "mentors.py:Mentored",
        "owner_emulator.py:OwnerEmulator",
    ],
    "compression": ["squeezed.py:Squeezed"],
    "objectives": ["mentors.py:Taught", "preference.py:Preference"],
    "mechanisms": [
        *("noised_mean.py:NoisedMean", "noised_mean.py:NoisedUpdates"),
        *("repeatable_dp.py:RepeatableDp", "seeded_dp.py:SeededDp"),
    ],
    "aggregators": ["secure_sum.py:SecureSum", "signed_greetings.py:SignedGreetings"],
}


def allowed() -> dict[str, object]:
    """A policy that trusts the server, and allows all parts of the package and these others."""
    own = {kind.policy: kind.names() for kind in PART_KINDS if kind.policy in OUTSIDE}
    others = {setting: [f"{PARTS / name}" for name in names] for setting, names in OUTSIDE.items()}
    allowed_parts = {setting: [*own[setting], *others[setting]] for setting in OUTSIDE}
    return {**TRUSTING, "delivered_models": "allow", "tasks": TASK.names(), **allowed_parts}


@contextlib.contextmanager
def faltering(falters: int) -> Iterator[None]:
    """Lets FedAvg fail in a round, before its step."""
    step = FedAvg.step

    def fails(self: FedAvg, state: State, aggregate: Aggregate, server: Server) -> State:
        if server.context.round == falters:
            raise RuntimeError("the server falters")
        return step(self, state, aggregate, server)

    with mock.patch.object(FedAvg, "step", fails):
        yield


class LastingEngine:
    """What one run after another takes for an engine of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._nodes: list[int] = []
        self._news: list[Frame] = []
        self._first = self._last = 0  # tickets of this run, as the engine knows them

    def begin(self) -> None:
        """A new run must hear which nodes there are, and nothing of the run before."""
        self._news = [({"is": "nodes", "nodes": self._nodes}, b"")] if self._nodes else []
        self._first = self._last + 1

    def send(self, node: int, ticket: int, body: bytes) -> None:
        self._last = max(self._last, self._first + ticket)
        self._engine.send(node, self._first + ticket, body)

    def event(self, seconds: float) -> Frame | None:
        found = self._news.pop() if self._news else self._engine.event(seconds)
        if found is None:
            return None
        head, body = found
        if "ticket" in head:
            ticket = head["ticket"] - self._first
            return ({**head, "ticket": ticket}, body) if ticket >= 0 else None
        self._nodes = head.get("nodes", [])
        return found


class StandingFederation:
    """Runs experiments one after another."""

    def __init__(self, parts: Federation) -> None:
        self.parts = parts
        self.status_ports = {name: free_port() for name in ("server", *THREE)}
        parts.know_each_other(THREE)
        self._orders, theirs = multiprocessing.Pipe()
        parts.start("server", lambda: self._serve(theirs))
        theirs.close()
        for name in THREE:
            self.silo(name)

    def silo(self, name: str) -> None:
        """Start a silo (again)."""
        words = ["--status-port", str(self.status_ports[name])]
        rows = {"path": str(self.parts.data), "public": str(self.parts.data)}
        policy = {**allowed(), "profile": "refuse" if name == "silo-3" else "allow"}
        self.parts.silo(name, words, data=rows, policy=policy)

    def kill(self, name: str) -> None:
        """Kill a silo as its machine would, and wait until Flower's processes are gone, too."""
        self.parts.kill(name)
        self.parts.gone(name)

    def begin(self, experiment: Path, folder: Path, *words: str, falters: int = 0) -> None:
        """Let the server run an experiment of three clients in a folder.

        falters: a round in which it ends before the algorithm's step; 0: none.
        """
        self._orders.send((experiment, [*words, "num_clients=3", "cohort=off"], folder, falters))

    def done(self) -> None:
        """Wait until the run has ended, and has ended well."""
        trouble = self.trouble()
        assert trouble is None, trouble

    def trouble(self) -> str | None:
        """The traceback with which the run has ended, once it has; None if it has ended well."""
        assert self._orders.poll(patience(600)), self.parts.said("server")
        try:
            trouble: str | None = self._orders.recv()
        except EOFError:
            trouble = self.parts.said("server")
        return trouble

    def _serve(self, orders: Connection) -> None:
        """Serve one experiment after another."""
        logging.basicConfig()
        logging.getLogger("hanse").setLevel(logging.INFO)  # as the command has it
        engines: list[LastingEngine] = []
        start = serve._engine
        address = serve.Address("127.0.0.1", self.parts.port, self.parts.kit)
        with contextlib.ExitStack() as until_the_end:

            @contextlib.contextmanager
            def lasting(*about: object) -> Iterator[LastingEngine]:
                if not engines:
                    engine = until_the_end.enter_context(start(*about))
                    engines.append(LastingEngine(engine))
                engines[0].begin()
                yield engines[0]

            # From the second run on its port is busy: with the SuperLink that lasts.
            with mock.patch.multiple(serve, _engine=lasting, refuse_busy=mock.DEFAULT):
                while True:
                    experiment, words, folder, falters = orders.recv()
                    with faltering(falters):
                        orders.send(self._trouble(address, experiment, words, folder))

    def _trouble(
        self, address: serve.Address, experiment: Path, words: list[str], folder: Path
    ) -> str | None:
        """Serve an experiment; the traceback if that fails."""
        try:
            loaded = loading.load(experiment, [*words, f"output_dir={folder}"])
            serve.serve(loaded, address, self.status_ports["server"], LogFormat.JSON)
        except Exception:
            return traceback.format_exc()
        return None


@contextlib.contextmanager
def standing_federation(home: Path, data: Path) -> Iterator[StandingFederation]:
    """A federation that stays up until the end."""
    with federation(home, Path(), data) as parts:
        yield StandingFederation(parts)
