"""The silos of a round agree on what they were sent before any of them trains.

A server that sends each silo another model can read single updates out of any sum (Pasquini et al.
2021, 2111.07380). So a silo answers a train request with a statement: a digest of what it was sent,
signed with its own key. The server passes the statements of all on to all, and a silo trains only
if enough others, whose keys it has, were sent the same. This protocol is a reconstruction: the
paper asks for such an agreement and leaves open how it is made.

Digests cover what is the same for all: the job, the order with its numbers, the server's state of
the transforms, and the hash of the adapter's constants. Where a client's share depends on its rank
(HetLoRA, FlexLoRA), only silos of the same rank can compare. What an aggregator notes for one
client alone is not covered.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from torch import Tensor

from hanse import atomic_files
from hanse.errors import UserError
from hanse.federation.messages import AGREE, AGREED, Reply, Request, Update
from hanse.security.signatures import SKEW, Stamp, Untrusted, sign, unverified, verify
from hanse.tensors import json_text
from hanse.tensors.named import digest, shapes
from hanse.tensors.serialization import Groups

ALL = "silos"  # the audience of a statement
STATEMENT = "statement"  # the tensor that it travels as
LARGEST = 8192  # bytes of one


class Disagreement(UserError):  # noqa: N818 (said of a round)
    """Silos were sent different things, or too few say that they were sent the same."""


class Sent(NamedTuple):
    """What a silo was sent: its names, shapes and dtypes, and all of it, as SHA-256 each."""

    layout: str
    digest: str


def sent(request: Request, job: str) -> Sent:
    """What of a request is the same for all clients of like rank; job: the experiment's text."""
    groups: Groups = {"order": request.instruction.tensors, **request.transform_states}
    told = [(group, *one) for group, tensors in sorted(groups.items()) for one in shapes(tensors)]
    layout = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    whole = [
        *(request.kind, request.round, hashlib.sha256(job.encode()).hexdigest(), layout),
        *(sorted(request.instruction.numbers.items()), sorted(groups), request.constants),
        *(digest(tensors) for _, tensors in sorted(groups.items())),
    ]
    return Sent(layout, hashlib.sha256(json.dumps(whole).encode()).hexdigest())


@dataclass
class AgreementMember:
    """One silo's part in the agreement of one run.

    job: the experiment's text as the server sent it.
    others: the keys of the silos that it knows. needed: how many of them must have been sent the
        same. file: where it is kept what this silo has stated, one digest for each round; beside
        it lies the train request that it has not answered yet, for a process that comes after.
    tell: is told of each refusal.
    """

    name: str
    run: str
    job: str
    key: Ed25519PrivateKey
    others: Mapping[str, Ed25519PublicKey]
    needed: int
    file: Path
    tell: Callable[[str], object] = lambda reason: None
    clock: Callable[[], float] = time.time
    _stated: dict[str, str] = field(init=False)
    _trained: tuple[str, bytes] = ("", b"")  # the last train request, as a hash, and its reply

    def __post_init__(self) -> None:
        self._stated = _kept(self.file)

    def answer(self, message: bytes, respond: Callable[[bytes], bytes]) -> bytes:
        """The reply to a request: a statement first, and `respond`'s once the others agree.

        Who asks for the same again is told the same, and nothing is trained twice.
        """
        request = Request.parse(message)
        try:
            if request.kind == "train":
                statement = self.statement(request)
                atomic_files.write(self._waiting, message, private=True)
                update = Update({STATEMENT: _bytes(statement)})
                return Reply(self.name, AGREE, request.round, update).pack()
            if request.kind != AGREED:
                return respond(message)
            waiting = atomic_files.read(self._waiting) or b""
            asked = Request.parse(waiting) if waiting else None
            if asked is None or asked.round != request.round:
                raise Disagreement(f"{self.name} was not asked to train in round {request.round}.")
            self.check(asked, [*filter(None, map(content, request.instruction.tensors.values()))])
            key = hashlib.sha256(waiting).hexdigest()
            if self._trained[0] != key:
                reply = respond(waiting)
                if Reply.parse(reply).error:  # next time it may go well
                    return reply
                self._trained = key, reply
            return self._trained[1]
        except Disagreement as error:
            self.tell(str(error))
            return Reply(self.name, "train", request.round, error=str(error)).pack()

    def statement(self, request: Request) -> bytes:
        """This silo's signed word on what it was sent; in one run, one for each round.

        Otherwise a server could have it say yes to one model, train it on another, and show its
        first word to the rest. A server that resumes sends the same again, bit for bit.
        """
        mine = sent(request, self.job)
        if self._stated.setdefault(str(request.round), mine.digest) != mine.digest:
            raise Disagreement(
                f"{self.name} was sent another model for round {request.round} than before."
            )
        atomic_files.write(self.file, json.dumps(self._stated).encode(), private=True)
        return sign(json.dumps(mine).encode(), self._stamp(request.round), self.key)

    def check(self, request: Request, statements: list[bytes]) -> None:
        """Raise Disagreement unless enough others were sent what this silo was sent.

        Statements that are not of this round, or not of a silo that is known here, do not count;
        a single one that says otherwise is enough to refuse.
        """
        mine = sent(request, self.job)
        agreed = set()
        for statement in statements:
            found = self._read(statement, request.round)
            if found is None or found[1].layout != mine.layout:
                continue
            other, theirs = found
            if theirs.digest != mine.digest:
                raise Disagreement(
                    f"{self.name} and {other} were sent different models for round "
                    f"{request.round}: the server treats them differently, and {self.name} does "
                    "not train."
                )
            agreed.add(other)
        if len(agreed) < self.needed:
            raise Disagreement(
                f"{self.name} trains only if {self.needed} silos that it knows were sent the same "
                f"model; for round {request.round} {len(agreed)} said so"
                f"{': ' + ', '.join(sorted(agreed)) if agreed else ''}."
            )

    @property
    def _waiting(self) -> Path:
        return self.file.with_suffix(".request")

    def _stamp(self, round: int) -> Stamp:
        return Stamp(self.run, round, 0, self.name, ALL, "statement", float(self.clock()))

    def _read(self, statement: bytes, round: int) -> tuple[str, Sent] | None:
        """Who stated what, if it is a statement on this round by a silo that is known here."""
        try:
            stamp, body = verify(statement, self.others)
            layout, whole = json_text.parse(body)
        except (Untrusted, ValueError, TypeError, RecursionError):
            return None
        about = (stamp.run, stamp.round, stamp.audience, stamp.direction)
        if about != (self.run, round, ALL, "statement") or stamp.sender == self.name:
            return None
        if abs(self.clock() - stamp.time) > SKEW:
            return None
        return stamp.sender, Sent(str(layout), str(whole))


def stated(statement: bytes) -> Sent | None:
    """What a statement says, whoever made it; None if it is none."""
    try:
        layout, whole = json_text.parse(unverified(statement))
    except (Untrusted, ValueError, TypeError, RecursionError):
        return None
    return Sent(str(layout), str(whole))


def content(statement: Tensor) -> bytes | None:
    """The bytes in a tensor that came as a statement; None if it cannot be one."""
    if statement.dtype != torch.uint8 or statement.dim() != 1 or statement.numel() > LARGEST:
        return None
    return statement.numpy().tobytes()


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _kept(file: Path) -> dict[str, str]:
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        return {str(key): str(value) for key, value in json_text.parse(data).items()}
    except (ValueError, AttributeError, RecursionError):
        raise UserError(
            f"{file} cannot be read, which says what models this silo was sent; bring it back from "
            "a copy, or begin a new run."
        ) from None
