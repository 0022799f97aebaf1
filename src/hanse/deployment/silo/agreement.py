"""The agreement: the silos of a round compare their requests before any of them trains.

A server that sends each silo another model can read single updates out of any sum (Pasquini et al.
2021, 2111.07380). Therefore a silo answers a train request with a statement: a digest of the
request, signed with its own key. The server passes all statements on to all silos, and a silo
trains only if enough others, whose keys it knows, were sent the same. This protocol is a
reconstruction: the paper asks for such an agreement and leaves its form open.

Digests cover the job and the parts of a request that are the same for all silos
(`federation/request_digest.py`). Where the instruction depends on a client's rank (HetLoRA,
FlexLoRA), only silos of the same rank can compare. An aggregator whose clients compare their
requests in its own phases (`Aggregator.agrees`) replaces this protocol.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hanse import atomic_files
from hanse.errors import UserError
from hanse.federation.messages import AGREE, AGREED, Reply, Request, Update
from hanse.federation.request_digest import request_digest, request_layout
from hanse.journal.commitments import Commitments
from hanse.security.identity import Identity
from hanse.security.signatures import SKEW, Stamp, Untrusted, sign, unverified, verify
from hanse.tensors import json_text
from hanse.tensors.named import from_bytes, to_bytes

ALL = "silos"  # the audience of a statement
STATEMENT = "statement"  # the name of the tensor that carries it
LARGEST = 8192  # bytes of a statement


class DisagreementError(UserError):
    """Silos were sent different requests, or too few state that theirs is the same."""


class Sent(NamedTuple):
    """SHA-256 of a request's names, shapes and dtypes, and of the whole request."""

    layout: str
    digest: str


def sent(request: Request, job: str) -> Sent:
    """The digests of what is the same for all clients of one rank; job: the experiment's text."""
    content = hashlib.sha256(job.encode()).digest() + request_digest(request)
    return Sent(request_layout(request), hashlib.sha256(content).hexdigest())


@dataclass
class AgreementMember:
    """One silo's part in the agreement of one run.

    identity: of this silo, with the keys of the silos that it knows.
    job: the experiment's text as the server sent it.
    needed: how many of the known silos must have been sent the same.
    file: keeps this silo's statements, one digest for each round. Beside it lies the train request
        that is not answered yet, so that a restarted silo can go on.
    tell: called with the reason of each refusal.
    """

    identity: Identity
    run: str
    job: str
    needed: int
    file: Path
    tell: Callable[[str], object] = lambda reason: None
    clock: Callable[[], float] = time.time
    _stated: Commitments = field(init=False)
    _trained: tuple[str, bytes] = ("", b"")  # the last train request, as a hash, and its reply

    def __post_init__(self) -> None:
        self._stated = Commitments(self.file)

    def answer(self, message: bytes, respond: Callable[[bytes], bytes]) -> bytes:
        """The reply to a request: first a statement, then the reply of `respond` if others agree.

        The same request gets the same reply again, and nothing is trained twice.
        """
        request = Request.parse(message)
        try:
            if request.kind == "train":
                statement = self.statement(request)
                atomic_files.write(self._waiting, message, private=True)
                update = Update({STATEMENT: from_bytes(statement)})
                return Reply(self.name, AGREE, request.round, update).pack()
            if request.kind != AGREED:
                return respond(message)
            waiting = atomic_files.read(self._waiting) or b""
            training = Request.parse(waiting) if waiting else None
            if training is None or training.round != request.round:
                raise DisagreementError(
                    f"{self.name} was not asked to train in round {request.round}."
                )
            self.check(
                training, [*filter(None, map(content, request.instruction.tensors.values()))]
            )
            key = hashlib.sha256(waiting).hexdigest()
            if self._trained[0] != key:
                reply = respond(waiting)
                if Reply.parse(reply).error:  # is not kept, since the next try may succeed
                    return reply
                self._trained = key, reply
            return self._trained[1]
        except DisagreementError as error:
            self.tell(str(error))
            return Reply(self.name, "train", request.round, error=str(error)).pack()

    def statement(self, request: Request) -> bytes:
        """This silo's signed statement on its request; a run has one for each round.

        With two, a server could let the silo state one model, train it on another, and show the
        first statement to the others. A server that resumes sends the same request, bit for bit.
        """
        own = sent(request, self.job)
        if not self._stated.commit(request.round, own.digest):
            raise DisagreementError(
                f"{self.name} was sent another model for round {request.round} than before."
            )
        return sign(json.dumps(own).encode(), self._stamp(request.round), self.identity.key)

    def check(self, request: Request, statements: list[bytes]) -> None:
        """Raise DisagreementError unless enough others state the same request as this silo's.

        Statements of another round, or of a silo that is not known here, do not count. A single
        different statement is enough to refuse.
        """
        own = sent(request, self.job)
        agreed = set()
        for statement in statements:
            known = self._read(statement, request.round)
            if known is None or known[1].layout != own.layout:
                continue
            other, stated = known
            if stated.digest != own.digest:
                raise DisagreementError(
                    f"{self.name} and {other} were sent different models for round "
                    f"{request.round}: the server treats them differently, and {self.name} does "
                    "not train."
                )
            agreed.add(other)
        if len(agreed) < self.needed:
            raise DisagreementError(
                f"{self.name} trains only if {self.needed} silos that it knows were sent the same "
                f"model; for round {request.round} {len(agreed)} said so"
                f"{': ' + ', '.join(sorted(agreed)) if agreed else ''}."
            )

    @property
    def name(self) -> str:
        """This silo's name."""
        return self.identity.name

    @property
    def _waiting(self) -> Path:
        return self.file.with_suffix(".request")

    def _stamp(self, round: int) -> Stamp:
        return Stamp(self.run, round, 0, self.name, ALL, "statement", float(self.clock()))

    def _read(self, statement: bytes, round: int) -> tuple[str, Sent] | None:
        """The sender and content of a statement on this round; None if its sender is not known."""
        try:
            stamp, body = verify(statement, self.identity.peers)
            layout, content = json_text.parse(body)
        except (Untrusted, ValueError, TypeError, RecursionError):
            return None
        about = (stamp.run, stamp.round, stamp.audience, stamp.direction)
        if about != (self.run, round, ALL, "statement") or stamp.sender == self.name:
            return None
        if abs(self.clock() - stamp.time) > SKEW:
            return None
        return stamp.sender, Sent(str(layout), str(content))


def stated(statement: bytes) -> Sent | None:
    """The content of a statement, without a check of its signature; None if it cannot be read."""
    try:
        layout, digest = json_text.parse(unverified(statement))
    except (Untrusted, ValueError, TypeError, RecursionError):
        return None
    return Sent(str(layout), str(digest))


def content(statement: Tensor) -> bytes | None:
    """The bytes of the statement in a tensor; None if the tensor cannot hold one."""
    if statement.dtype != torch.uint8 or statement.dim() != 1 or statement.numel() > LARGEST:
        return None
    return to_bytes(statement)
