"""A federation in miniature: its silos, and a network that misbehaves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from hanse.evaluation.perplexity import Perplexity
from hanse.federation.accounting.sampling_bounds import exactly
from hanse.federation.aggregators.mean import Mean
from hanse.federation.client import ClientEndpoint
from hanse.federation.client_memory import MemoryStore
from hanse.federation.client_sampling import taking_part
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.transform import Transform
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import ClientProfile, Reply, Request
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.federation.server import rounds as loop
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import latest
from hanse.journal.records import RoundRecord
from hanse.journal.run_folder import Journal, read_rounds
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.security.identity import simulated
from hanse.simulation.in_process import InProcess
from hanse.tensors.named import layout
from hanse.tensors.serialization import MessageError
from toy_learners import CLASSES, FEATURES, QUICK, Make, Toy, points


def silos(
    number: int = 4,
    training: TrainingSettings = QUICK,
    features: int = FEATURES,
    run: int = 3,
    rank: int = 0,
    beside: str = "",
    whole: bool = False,
    models: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Toy]:
    """Clients c0, c1, … with 8, 12, 16, … points; each is short of one class."""
    result = {}
    for index in range(number):
        own = tuple(y for y in range(CLASSES) if y != index % CLASSES)
        splits = {
            "train": points(index, 8 + 4 * index, own, features),
            "test": points(100 + index, 6, own, features),
            "public": points(1000, 30, features=features),
        }
        form: dict[str, Any] = {"rank": rank, "beside": beside, "whole": whole, "models": models}
        result[f"c{index}"] = Toy(splits, training, rounds=run, **form)
    return result


def held_out(training: TrainingSettings = QUICK, features: int = FEATURES, **settings: Any) -> Toy:
    """What makes the server's learner: points of all classes, disjoint from the clients' own."""
    splits = {
        "train": points(1000, 30, features=features),
        "public": points(1000, 30, features=features),
        "validation": points(2000, 60, features=features),
        "test": points(3000, 60, features=features),
    }
    return Toy(splits, training, **settings)


class Meddler(Transport):
    """A federation whose network loses, changes, reorders and repeats messages, and keeps a copy.

    lost: whether a request to (client, kind, round) never arrives.
    changed: what the server receives in place of a reply.
    rearranged: what arrives in place of the replies that are under way.
    """

    def __init__(
        self,
        inner: Transport,
        lost: Callable[[str, str, int], bool] = lambda client, kind, round: False,
        changed: Callable[[Reply], Reply] | None = None,
        rearranged: Callable[[list[bytes]], Iterable[bytes]] = list,
    ) -> None:
        self.inner, self.lost, self.changed, self.rearranged = inner, lost, changed, rearranged
        self.requests: list[bytes] = []
        self.replies: list[bytes] = []
        self._waiting: list[bytes] = []

    def profiles(self) -> list[ClientProfile]:
        return self.inner.profiles()

    def send(self, client: str, message: bytes) -> None:
        self.requests.append(message)
        request = Request.parse(message)
        if not self.lost(client, request.kind, request.round):
            self.inner.send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        if not self._waiting:
            under_way = []
            while (arrived := self.inner.receive(timeout)) is not None:
                under_way.append(arrived[1])
                self.replies.append(arrived[1])
            self._waiting = list(self.rearranged(under_way))
        if not self._waiting:
            return None
        message = self._waiting.pop(0)
        try:
            reply = Reply.parse(message)
        except MessageError:  # somebody's noise
            return "", message
        return reply.client, message if self.changed is None else self.changed(reply).pack()


class Outcome(NamedTuple):
    """What a federation came to: its records, what the server knows, and the run."""

    records: list[RoundRecord]
    server_state: ServerState
    run: Run


def told(make: Make) -> dict[str, float]:
    """What the server knows of a client's adapter."""
    rank = getattr(make, "rank", 0)
    return {"rank": float(rank)} if rank else {}


def federate(
    algorithm: Algorithm,
    learners: Mapping[str, Make],
    folder: Path,
    server: Make | None = None,
    *,
    rounds: int = 3,
    upload: Sequence[Transform] = (),
    download: Sequence[Transform] = (),
    mechanisms: Sequence[Mechanism] = (),
    error_feedback: bool = False,
    own: Mapping[str, Pipelines] | None = None,
    aggregator: Aggregator | None = None,
    seed: int = 0,
    fraction_train: float = 1.0,
    numbers: Mapping[str, Mapping[str, float]] | None = None,
    network: Callable[[Transport], Transport] = lambda inner: inner,
    stop_after: int | None = None,
    quorum: int = 1,
    over_selection: float = 1.0,
    deadline: float | None = None,
    max_norm_ratio: float | None = None,
    collects: bool = False,
    endpoints: Callable[[ClientEndpoint], ClientEndpoint] = lambda own: own,
) -> Outcome:
    """Run a federation in `folder`, or go on with the one that is there.

    numbers: what the server knows of each client beside its number of examples.
    error_feedback: in both directions. own: the pipelines of clients with codecs of their own.
    stop_after: abandon the run as soon as this round is recorded.
    endpoints: what is made of each client's endpoint.
    """
    unequal = algorithm.clients_may_differ in ("layout", "model")
    profiles = {
        name: ClientProfile(
            name,
            len(make(RoundContext(0), {}).examples("train")),
            (numbers or {}).get(name, told(make)),
            layout(make(RoundContext(0), {}).parameters()) if unequal else None,
        )
        for name, make in learners.items()
    }
    tasks = {"loss": Perplexity()}
    up = Pipeline("upload", tuple(upload), tuple(mechanisms), error_feedback)
    down = Pipeline("download", tuple(download), (), error_feedback and bool(download))
    pipelines = Pipelines(up, down)
    method = Method(algorithm, aggregator or Mean(), pipelines, own or {})

    def endpoint(name: str) -> ClientEndpoint:
        store = MemoryStore(folder / "clients" / name)
        profile, learner = profiles[name], learners[name]
        parts = method.for_client(name)
        identity = simulated(seed, name, learners)
        own = ClientEndpoint(profile, learner, parts, tasks, store, seed, identity=identity)
        own = replace(own, rounds=rounds, participants=tuple(learners))
        own.clients = taking_part(len(profiles), fraction_train)
        return endpoints(own)

    transport = network(InProcess(list(profiles.values()), endpoint))
    journal = Journal(folder) if folder.exists() else Journal.create(folder, "")
    try:
        run = Run(
            Schedule(
                rounds,
                seed,
                fraction_train,
                quorum=quorum,
                over_selection=over_selection,
                deadline=deadline,
                max_norm_ratio=max_norm_ratio,
                participants=tuple(profiles),
            ),
            method,
            transport,
            server or held_out(),
            tasks,
            journal,
            collects,
            sampling=lambda own: exactly(learners[own.name](RoundContext(0), {}).sampling()),
        )
        with patch("os.fsync"):  # a test's files need not outlive a power cut
            for record in loop(run):
                if record.round == stop_after:
                    break
    finally:
        journal.close()
    checkpoint = latest(folder)
    assert checkpoint is not None  # round 0 is always recorded
    return Outcome(read_rounds(folder), ServerState.restored(checkpoint), run)


def same(a: ServerState, b: ServerState) -> bool:
    """Whether two servers know the same, to the last bit."""
    left, right = ({**s.algorithm_state, **s.transform_states} for s in (a, b))
    left, right = ({k: v for k, v in groups.items() if v} for groups in (left, right))
    return (
        dict(a.last_counted_rounds) == dict(b.last_counted_rounds)
        and left.keys() == right.keys()
        and all(left[group].keys() == right[group].keys() for group in left)
        and all(
            torch.equal(t, right[group][name]) for group in left for name, t in left[group].items()
        )
    )


def with_tensors(reply: Reply, tensors: Mapping[str, Tensor]) -> Reply:
    """The same reply with other tensors."""
    return replace(reply, update=replace(reply.update, tensors=dict(tensors)))
