"""The worker of a silo: it stays in memory from round to round, and answers the server's envelopes.

A server sends settings and tensors. The settings are read with this package's own model of an
experiment. Where the rows and the model lie, and whether the silo takes part at all, is decided by
`silo.yaml`.
"""

import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import hanse
from hanse.deployment.envelopes import HELLO, BadEnvelopeError, Envelope, SiloReply
from hanse.deployment.silo import machine_figures, precision
from hanse.deployment.silo.endpoint import load_endpoint
from hanse.deployment.silo.enforcement import WITHHELD, note
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import JobRefusedError
from hanse.deployment.silo.machine_figures import MachineFigures
from hanse.deployment.silo.model_download import LacksModel, ModelDownload, brings_model
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_memory import LostMemory
from hanse.federation.kept_update import KeptUpdate
from hanse.federation.messages import PREPARE, Reply, Request
from hanse.observability.memory import peak_memory
from hanse.observability.metrics_endpoint import Figure
from hanse.observability.requests import (
    answering,
    current_request,
    log_event,
    log_fields,
    purpose,
)
from hanse.security.kits import SiloKit
from hanse.security.signatures import Inbox, Outbox, Untrusted
from hanse.tensors import json_text
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)


@dataclass
class ActiveRun:
    """The silo's side of one run.

    envelope: the one that it was loaded by, without its request.
    last: the hash of the last request, and the reply to it. A server that did not receive the reply
        asks again and gets the same reply; nothing is trained twice.
    figures: those of this machine, which the run asks for; None if none may leave.
    """

    envelope: Envelope
    endpoint: ClientEndpoint
    guard: Guard
    round: int = 0  # of the last request
    last: tuple[str, bytes] = ("", b"")
    figures: MachineFigures | None = None

    def reply(self, message: bytes) -> bytes:
        """The reply to a request; raises BadEnvelopeError if the request cannot be read."""
        log_event("received", "received: request of %s bytes", f"{len(message):,}")
        digest = hashlib.sha256(message).hexdigest()
        if self.last[0] == digest:
            log_event("replied", "replied as before, since the same request came again")
            return self.last[1]
        start = time.perf_counter()
        data = self.guard.answer(message, self._respond)
        if data is None:
            raise BadEnvelopeError("the request cannot be read.")
        reply = Reply.parse(data)
        if reply.error:  # is not kept, since the next try may succeed
            extra = log_fields("refused", current_request())
            log.warning("round %d: no %s: %s", reply.round, reply.kind, reply.error, extra=extra)
            return data
        if reply.kind == PREPARE:  # as often as a file has chunks; the file on disk is the record
            return data
        self.last = digest, data
        took = time.perf_counter() - start
        extra = log_fields("replied", current_request())
        log.info("round %d: answered %s in %.1f s", reply.round, reply.kind, took, extra=extra)
        return data

    def _respond(self, message: bytes) -> bytes:
        request = Request.parse(message)
        kind, self.round = request.kind, request.round
        del request  # or a chunk of a file would be in memory twice
        try:
            data = respond(self.endpoint, message)
            return self.figures.beside(data, self.endpoint) if self.figures else data
        except LostMemory as error:
            log.warning("%s", error)
            reason = str(error)
        except UserError:
            raise
        except Exception:  # no request of a server may end this process
            log.exception("round %d: a request %s has failed", self.round, purpose(kind))
            reason = WITHHELD
        return Reply(self.endpoint.profile.name, kind, self.round, error=reason).pack()


@dataclass
class SiloWorker:
    """One silo in memory: its base models, its rows, and the run in which it takes part.

    kit: its keys, and those of the server; none for a server on the same machine.
    requests: how many were answered, by kind. loaded: how often a run was loaded.
    """

    silo: SiloSettings
    kit: SiloKit | None = None
    resources: Resources = field(default_factory=Resources)
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    loaded: int = 0
    _active: ActiveRun | None = None
    _lacking: Envelope | None = None  # of the job whose base model is being downloaded
    _download: ModelDownload | None = None
    _run: str = ""

    def __post_init__(self) -> None:
        if self.kit is not None:
            file = self.silo.state / "letters-seen.json"
            self._inbox = Inbox(self.silo.name, "request", self.kit.known, file)
            self._outbox = Outbox(self.silo.name, self.kit.signing)

    def answer(self, data: bytes) -> bytes:
        """The reply to an envelope, or to a hello, which asks for the silo's name."""
        if data == HELLO:
            return SiloReply(self.silo.name, self.session).pack()
        if self.kit is None:
            return self._reply_to_envelope(data, None).pack()
        try:
            stamp, body = self._inbox.open(data)
        except Untrusted as error:
            return self._refusal(BadEnvelopeError(f"{error}.")).pack()
        return self._outbox.reply(self._reply_to_envelope(body, stamp.run).pack(), stamp)

    def _reply_to_envelope(self, data: bytes, signed_run: str | None) -> SiloReply:
        """The reply to an envelope. signed_run: the run in its signature; None if not signed."""
        try:
            envelope = Envelope.parse(data)
            if signed_run not in (None, envelope.run):
                raise BadEnvelopeError("the envelope is of another run than its signature.")
        except BadEnvelopeError as error:
            return self._refusal(error, signed_run or "")
        with answering(self._request_id(envelope)):
            return self._take_part(envelope, signed_run or "")

    def _take_part(self, envelope: Envelope, signed_run: str) -> SiloReply:
        """Do what an envelope asks for, or refuse it."""
        of_model = bool(envelope.request) and brings_model(envelope.request)
        try:
            if of_model and self._download and self._lacking == replace(envelope, request=b""):
                return self._of_model(self._download.reply(envelope.request))
            active = self._activate(envelope)
            self._download = None
            body = active.reply(envelope.request) if envelope.request and not of_model else b""
            self.requests["round" if body else "profile"] += 1
        except LacksModel as lack:
            self._lacking, self._download = replace(envelope, request=b""), lack.download
            return self._of_model(lack.download.lacking())
        except JobRefusedError as error:  # the guard has recorded it
            return self._refusal(error, recorded=True)
        except UserError as error:
            return self._refusal(error, signed_run)
        except Exception:  # no envelope of a server may end this process
            log.exception("an envelope could not be answered")
            return SiloReply(self.silo.name, self.session, error=WITHHELD)
        return SiloReply(self.silo.name, self.session, active.endpoint.profile, body=body)

    def _of_model(self, body: bytes) -> SiloReply:
        """The reply while this silo lacks the base model: it has no profile yet."""
        self.requests["model"] += 1
        return SiloReply(self.silo.name, self.session, body=body)

    def _request_id(self, envelope: Envelope) -> str:
        """The name of the request in an envelope; empty if there is none that can be read."""
        try:
            request = envelope.request and Request.parse(envelope.request)
        except MessageError:
            return ""
        return request.id(envelope.run, self.silo.name) if request else ""

    def _refusal(self, error: UserError, run: str = "", recorded: bool = False) -> SiloReply:
        """Count and log a refusal; the reply has the reason if the policy lets it leave.

        run: the run that the log of refusals names; empty if it is not known.
        recorded: true if the refusal is in that log already.
        """
        self.refused += 1
        log.warning("refused: %s", error, extra=log_fields("refused", current_request()))
        if not recorded:
            note(self.silo.state, run, "refused", str(error))
        leaves = (
            isinstance(error, JobRefusedError | BadEnvelopeError)
            or self.silo.policy.share_error_texts
        )
        return SiloReply(self.silo.name, self.session, error=str(error) if leaves else WITHHELD)

    def _activate(self, envelope: Envelope) -> ActiveRun:
        """The silo's side of an envelope's run, loaded if anything but the request is new."""
        if envelope.version != hanse.__version__:
            raise BadEnvelopeError(
                f"the server has hanse {envelope.version}, this silo {hanse.__version__}; "
                "install the same."
            )
        active, job = self._active, replace(envelope, request=b"")
        if active is None or active.envelope != job:
            log.info("run %s: loading", envelope.run)
            self._active = None  # two at once would need twice the memory
            active = self._active = self._load(job)
            self._run = envelope.run
            self.loaded += 1
        return active

    def _load(self, envelope: Envelope) -> ActiveRun:
        """Load a run: check its job, load the model and the rows, and accept the job."""
        guard = Guard(self.silo, self.kit, envelope.run)
        common = (envelope.precision, envelope.rows, envelope.public, envelope.code)
        job = guard.check_job(
            envelope.settings.encode(), envelope.model, _parsed(envelope.code), common
        )
        endpoint, rows = load_endpoint(self.silo, job, envelope, self.resources)
        guard.accept(job, rows)
        folder = self.silo.state / "runs" / envelope.run
        precision.note(folder, job.experiment, self.resources)
        endpoint = replace(
            endpoint,
            identity=self.kit.identity if self.kit else None,
            job=guard.job_digest,
            least_cohort=self.silo.policy.min_cohort,
            quorum=job.quorum,
            participants=job.participants,
            clients=job.cohort,
            refused=guard.enforcer.refused,
            kept=KeptUpdate(),
            most_epsilon=self.silo.policy.privacy.epsilon,
        )
        figures = machine_figures.of_job(job.experiment, guard.enforcer)
        return ActiveRun(envelope, endpoint, guard, figures=figures)

    def about(self) -> dict[str, Any]:
        """The run, round and silo that log lines name at this moment."""
        return {"run": self._run, "round": self._round, "silo": self.silo.name}

    def figures(self) -> Iterator[Figure]:
        """Figures on the worker's requests, refusals and memory since its start."""
        yield Figure("hanse_round", "The round of the last request", self._round, {})
        for kind, count in dict(self.requests).items():
            yield Figure("hanse_requests", "Answered requests", count, {"kind": kind}, True)
        yield Figure("hanse_refusals", "Envelopes that were refused", self.refused, {}, True)
        yield Figure("hanse_loads", "How often a run was loaded", self.loaded, {}, True)
        yield Figure("hanse_memory_bytes", "The most memory it has held", peak_memory(), {})

    @property
    def _round(self) -> int:
        return self._active.round if self._active else 0


def _parsed(text: str) -> object:
    """The value of a JSON text; None if it cannot be read."""
    try:
        return json_text.parse(text)
    except (ValueError, RecursionError):
        return None
