"""Releases: results with noise in them, durable before anybody uses them.

Noise that is drawn twice for one result protects less, since the two can be compared, and each draw
must be accounted for. So a result with noise is written to disk before it is used, and after a
crash it is read instead of drawn again. Each release has a line in a log, which stays.

At the server a release is the finished aggregate, if a mechanism draws noise in `finish`. At a
client it is the encoded update, if a mechanism draws noise in `encode`.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path

import torch

from hanse import atomic_files
from hanse.errors import UserError, explained
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, TransformStates
from hanse.federation.server_state import ServerState
from hanse.journal import record_files
from hanse.journal.checkpoints import Checkpoint
from hanse.journal.ledger import Ledger
from hanse.journal.records import RELEASES, ClientRecord, Mechanism, ReleaseRecord
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors

logger = logging.getLogger(__name__)

FOLDER = "releases"
SUFFIX = ".safetensors"
# More than the different requests that a silo answers in a round (policy.max_tries). Shares of
# noise may be drawn more often under a rule that opens several sums of a round, since a paused
# round is asked again with other notes.
KEPT_OF_A_ROUND = 8
# Groups in the server's releases; the last one has the simulated seconds of a round with links.
AGGREGATE, REPLIES, SIMULATED = "aggregate", "replies", "simulated"

Mechanisms = tuple[Mechanism, ...]


@dataclass(frozen=True)
class ReleaseLog:
    """The releases of the server, or of one client, in one run.

    folder: the releases' contents are in its folder `releases`.
    shared: a folder whose log has the lines of other runs, too; None: the log is in `folder`.
    run: the run's name in such a log.
    private: whether only the owner may read the files.
    """

    folder: Path
    shared: Path | None = None
    run: str = ""
    private: bool = False

    def find(self, round: int, request: str = "") -> tuple[ReleaseRecord, bytes] | None:
        """The release of a round with its content; None if there is none.

        request: the hash of the request that it must answer.
        Raises UserError if the content is damaged or missing.
        """
        for record in self._kept:
            if (record.round, record.request) == (round, request):
                return record, self._content(record)
        return None

    def keep(self, record: ReleaseRecord, content: bytes) -> tuple[ReleaseRecord, bytes]:
        """Make a release durable: its content, and then its line, with which it counts."""
        digest = hashlib.sha256(content).hexdigest()
        record = replace(record, digest=digest, run=self.run, time=time.time())
        atomic_files.write(self._file(record), content, self.private)
        record_files.append(self._log, record, self.private)
        self._kept[:] = _kept_after(self._kept, record)
        kept = [self._file(record) for record in self._kept]
        for _, file in atomic_files.hashed(self.folder / FOLDER, SUFFIX):
            if file not in kept:
                with explained(file):
                    file.unlink(missing_ok=True)
        return record, content

    def _content(self, record: ReleaseRecord) -> bytes:
        file = self._file(record)
        try:
            content = atomic_files.read_hashed(file)
        except atomic_files.DamagedError:
            content = None
        if content is None:
            raise UserError(
                f"{file} is damaged or missing, and its noise must not be drawn again: bring the "
                "file back from a copy, or begin a new run."
            )
        return content

    def _file(self, record: ReleaseRecord) -> Path:
        return self.folder / FOLDER / f"round-{record.round:05d}-{record.digest}{SUFFIX}"

    @property
    def _log(self) -> Path:
        return (self.shared or self.folder) / RELEASES

    @property
    def records(self) -> list[ReleaseRecord]:
        """All releases of the run so far."""
        records = record_files.read_lines(self._log, ReleaseRecord)
        return [record for record in records if record.run == self.run]

    @cached_property
    def _kept(self) -> list[ReleaseRecord]:
        """The releases whose contents are kept."""
        own: list[ReleaseRecord] = []
        return reduce(_kept_after, self.records, own)


def _kept_after(kept: Sequence[ReleaseRecord], record: ReleaseRecord) -> list[ReleaseRecord]:
    """The releases that are kept beside a new one: a server may go back by one round.

    Releases for other requests of the same round are kept, too: a server that alternates between
    two requests must not get new noise for each.
    """
    same_round = [former for former in kept if former.round == record.round]
    before = [former for former in kept if former.round == record.round - 1]
    return [*before, *same_round[1 - KEPT_OF_A_ROUND :], record]


def mechanisms(
    pipelines: Iterable[Pipeline],
    kinds: frozenset[str],
    states: TransformStates,
    context: RoundContext,
) -> Mechanisms:
    """The transforms that draw any of these kinds of noise, with their numbers.

    states, context: those with which they draw it.
    """
    drawing = {
        pipeline.place(index): transform
        for pipeline in pipelines
        for index, transform in enumerate(pipeline.transforms)
        if transform.noise & kinds
    }
    return tuple(
        Mechanism(
            type(transform).__name__, dict(transform.released(states.get(place, {}), context))
        )
        for place, transform in drawing.items()
    )


def finish_once(
    log: ReleaseLog,
    ledger: Ledger,
    round: int,
    before: ServerState,
    noise: Mechanisms,
    finish: Callable[[], tuple[Aggregate, ServerState]],
) -> tuple[Aggregate, ServerState]:
    """The finished aggregate of a round and the server's state after it, once they are durable.

    ledger: gets the round's replies back if an earlier process received them.
    before: the server's state before the round.
    noise: the mechanisms that draw noise, if there are any.
    finish: asks the clients and draws the noise; not called for a round that has its release.
    """
    if release := log.find(round):
        logger.info("round %d has its aggregate already; it goes on from there", round)
        return _unpacked(before, ledger, *release)
    aggregate, state = finish()
    record = ReleaseRecord(
        round=round,
        mechanisms=noise,
        clients=aggregate.clients,
        excluded=aggregate.excluded,
        weight=aggregate.weight,
        numbers=dict(aggregate.numbers),
    )
    release = log.keep(record, _packed(round, aggregate, state, ledger))
    return _unpacked(before, Ledger(), *release)


def find_update(log: ReleaseLog, request: Request, key: str) -> Update | None:
    """The encoded update that a client has released for a request; None if there is none."""
    release = log.find(request.round, key)
    return Reply.parse(release[1]).update if release else None


def keep_update(
    log: ReleaseLog, request: Request, key: str, client: str, noise: Mechanisms, update: Update
) -> None:
    """Make a client's encoded update durable before it is sealed and sent.

    noise: the mechanisms that drew noise.
    """
    record = ReleaseRecord(
        round=request.round,
        mechanisms=noise,
        clients=(client,),
        weight=update.weight,
        numbers=dict(update.numbers),
        request=key,
    )
    log.keep(record, Reply(client, request.kind, request.round, update).pack())


def release_key(request: Request, method: Method) -> str:
    """The hash of a request for an update, without what the released update does not depend on.

    The constants are not sent again to a client that has them by now. A round that was paused is
    repeated with another note of the aggregator: an update that its own noise protects stays the
    same, but a share of noise is drawn anew, since two sums of the same shares have a difference.
    Under a rule that opens one sum of a round there are no two such sums. A share stays the same
    there, since a server could average new shares out if it had the same sum opened again.
    """
    content = replace(request, given={}, attempt=0)
    shares = any("share" in part.noise for part in method.pipelines.upload.transforms)
    if method.aggregator.opens_once or not shares:
        content = replace(content, aggregator_note=Instruction())
    return hashlib.sha256(content.pack()).hexdigest()


def _packed(round: int, aggregate: Aggregate, state: ServerState, ledger: Ledger) -> bytes:
    """The content of a server's release: as a checkpoint, with the aggregate and the replies.

    It has nothing of the algorithm's state, which the step has not changed yet.
    """
    checkpoint = replace(state, algorithm_state={}, optimizers={}).checkpoint(round)
    lines = b"".join(map(record_files.line, ledger.records))
    own: dict[str, Tensors] = {
        AGGREGATE: aggregate.tensors,
        REPLIES: {"lines": torch.tensor(list(lines), dtype=torch.uint8)},
    }
    if ledger.simulated:
        own[SIMULATED] = {
            kind: torch.tensor(seconds, dtype=torch.float64)
            for kind, seconds in ledger.simulated.items()
        }
    return replace(checkpoint, groups={**checkpoint.groups, **own}).pack()


def _unpacked(
    before: ServerState, ledger: Ledger, record: ReleaseRecord, content: bytes
) -> tuple[Aggregate, ServerState]:
    """The aggregate and the server's state after it; the ledger gets the release's replies."""
    checkpoint = Checkpoint.parse(content)
    groups = dict(checkpoint.groups)
    tensors, lines = groups.pop(AGGREGATE), groups.pop(REPLIES)["lines"]
    for kind, seconds in groups.pop(SIMULATED, {}).items():
        ledger.simulated[kind] += float(seconds)
    aggregate = Aggregate(tensors, record.numbers, record.weight, record.clients, record.excluded)
    state = replace(
        ServerState.restored(replace(checkpoint, groups=groups), before.constants),
        algorithm_state=before.algorithm_state,
        optimizers=before.optimizers,
    )
    texts = lines.numpy().tobytes().splitlines()
    ledger.records += [record_files.parse(text, ClientRecord) for text in texts]
    return aggregate, state
