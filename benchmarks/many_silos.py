"""A round with 20 and with 200 silos that each send 5 MB: what the server holds at most.

The silos are a process without a model that speaks the protocol: hellos, envelopes, requests and
replies, as frames over a socket. It replies when it has all requests of a round, so that all
replies come at once. Gates: the peak of the server's resident memory with 200 silos ≤ 1.3 × that
with 20; beyond the model and the sum, with a reply at a time, at most a few updates. Writes
benchmarks/results/many_silos.json. Linux only: memory is read from /proc.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measured import keep
from scale import Large, forget, peak, resident

from hanse.deployment.envelopes import HELLO, Envelope, Envelopes, SiloReply
from hanse.deployment.flower.inbox import Inbox
from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.sockets import Connection, Frame, connect, listening
from hanse.federation import server
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.learner import Learner
from hanse.federation.messages import ClientProfile, Reply, Request, Update
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.journal.run_folder import Journal

SIZES = (20, 200)
TENSORS, VALUES = 20, 2**16  # of an update: 5 MB
ROUNDS = 2


class Line:
    """An engine whose nodes are all behind one socket."""

    def __init__(self, connection: Connection, nodes: int) -> None:
        self._connection, self._inbox = connection, Inbox(connection)
        self._nodes: Frame | None = ({"is": "nodes", "nodes": [*range(nodes)]}, b"")

    def send(self, node: int, ticket: int, body: bytes) -> None:
        self._connection.send({"node": node, "ticket": ticket}, body)

    def event(self, seconds: float) -> Frame | None:
        if self._nodes is not None:
            event, self._nodes = self._nodes, None
            return event
        return self._inbox.next(seconds)


def silos(path: str, number: int) -> None:
    """Answer as so many silos, until the server is gone."""
    connection = connect(path)
    draw = torch.Generator().manual_seed(0)
    update = {f"{n:02d}": torch.randn(VALUES, generator=draw) for n in range(TENSORS)}
    asked: list[tuple[int, int, Request]] = []
    try:
        while True:
            head, body = connection.receive()
            name = f"silo-{head['node']:03d}"
            request = Envelope.parse(body).request if body != HELLO else b""
            if request:
                asked.append((head["node"], head["ticket"], Request.heading(request)))
            else:
                profile = None if body == HELLO else _profile(name)
                reply = SiloReply(name, "first", profile)
                connection.send({"is": "reply", "ticket": head["ticket"]}, reply.pack())
            if len(asked) == number:
                for node, ticket, train in asked:
                    name = f"silo-{node:03d}"
                    result = Reply(name, train.kind, train.round, Update(update, {"loss": 1.0}))
                    reply = SiloReply(name, "first", _profile(name), body=result.pack())
                    connection.send({"is": "reply", "ticket": ticket}, reply.pack())
                asked = []
    except (EOFError, OSError):
        connection.close()


def _profile(name: str) -> ClientProfile:
    return ClientProfile(name, 100, {"rank": 8.0, "scaling": 2.0})


def serve(number: int) -> dict[str, Any]:
    """Two rounds with so many silos: the server's memory and seconds."""
    learner = Large(TENSORS, VALUES)
    names = [f"silo-{n:03d}" for n in range(number)]
    make: Callable[..., Learner] = lambda context, kept: learner  # noqa: E731
    with listening() as listener, tempfile.TemporaryDirectory(prefix="hanse-silos-") as folder:
        context = get_context("spawn")
        process = context.Process(target=silos, args=(str(listener.path), number), daemon=True)
        process.start()
        connection = listener.accept(120.0)
        assert connection is not None
        envelopes = Envelopes(Envelope("run", "rounds: 2"))
        clients = RemoteClients(Line(connection, number), names, envelopes, number)
        log = Journal.create(Path(folder) / "run", "")
        schedule = Schedule(ROUNDS, 0, validate_every=0, test=False, evaluate_clients=False)
        rounds = server.rounds(Run(schedule, Method(FedAvg(), Mean()), clients, make, {}, log))
        next(rounds)
        forget()
        before, start = resident(), time.perf_counter()
        counted = [len(record.clients) for record in rounds]
        seconds = time.perf_counter() - start
        log.close()
        connection.cut()
        process.join(10.0)
    assert counted == [number] * ROUNDS
    update = TENSORS * VALUES * 4
    return {
        "silos": number,
        "update_bytes": update,
        "peak_bytes": peak(),
        "before_bytes": before,
        "updates_beyond": (peak() - before) / update,
        "seconds_a_round": seconds / ROUNDS,
    }


def main() -> None:
    """Measure, print the gates, keep the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    runs = []
    for number in SIZES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            runs.append(fresh.submit(serve, number).result())
    ratio = runs[-1]["peak_bytes"] / runs[0]["peak_bytes"]
    beyond = runs[-1]["updates_beyond"] / runs[0]["updates_beyond"]
    for run in runs:
        print(
            f"{run['silos']} silos: {run['peak_bytes'] / 2**20:.0f} MB at most, "
            f"{run['updates_beyond']:.1f} updates beyond what it held before; "
            f"{run['seconds_a_round']:.1f} s a round"
        )
    print(f"peak with {SIZES[-1]} silos ÷ peak with {SIZES[0]}: {ratio:.3f} (gate 1.3)")
    print(f"the same beyond what it held before: {beyond:.2f}")
    print(
        keep("many_silos", {"rounds": ROUNDS, "runs": runs, "ratio": ratio, "ratio_beyond": beyond})
    )


if __name__ == "__main__":
    main()
