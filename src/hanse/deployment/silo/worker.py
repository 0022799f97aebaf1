"""A silo's side of a run: it stays in memory from round to round, and answers letters.

What a server sends are settings and tensors. The settings are read with our own model of an
experiment; which rows are read, where the model lies, and whether it is done at all is for
`silo.yaml` to say.
"""

import hashlib
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import hanse
from hanse.deployment.envelopes import HELLO, Envelope, RefusedError, SiloReply
from hanse.deployment.silo.enforcement import WITHHELD, note, rounded
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import Refused, RowCounts
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_memory import LostMemory
from hanse.federation.messages import Reply, Request
from hanse.learners.models.precision import read
from hanse.observability.memory import peak_memory
from hanse.observability.metrics_endpoint import Figure
from hanse.security.kits import SiloKit
from hanse.security.signatures import Inbox, Outbox, Untrusted

log = logging.getLogger(__name__)


@dataclass
class ActiveRun:
    """A silo's side of one run.

    last: the last request, as a hash, and what was replied: a server that asks again because it did
        not hear it is told again, and nothing is trained twice.
    """

    settings: str
    site: ClientEndpoint
    gate: Guard
    round: int = 0  # of the last request
    last: tuple[str, bytes] = ("", b"")

    def reply(self, message: bytes) -> bytes:
        """The reply to a request; raises RefusedError for what is none."""
        asked = hashlib.sha256(message).hexdigest()
        if self.last[0] != asked:
            start = time.perf_counter()
            reply = self.gate.answer(message, self._respond)
            if reply is None:
                raise RefusedError("the request cannot be read.")
            told = Reply.parse(reply)
            if told.error:  # next time it may go well
                return reply
            self.last = asked, reply
            took = time.perf_counter() - start
            log.info("round %d: answered %s in %.1f s", told.round, told.kind, took)
        return self.last[1]

    def _respond(self, message: bytes) -> bytes:
        request = Request.parse(message)
        self.round = request.round
        try:
            return respond(self.site, message)
        except LostMemory as error:
            log.warning("%s", error)
            said = str(error)
        except UserError:
            raise
        except Exception:  # whatever a server sends, it does not end this process
            log.exception("round %d: it could not %s", request.round, request.kind)
            said = WITHHELD
        return Reply(self.site.profile.name, request.kind, request.round, error=said).pack()


@dataclass
class SiloWorker:
    """One silo in memory: its base models, its rows, and the run it is in.

    kit: by which it is known, and knows the server; none on one machine alone.
    """

    silo: SiloSettings
    kit: SiloKit | None = None
    held: Resources = field(default_factory=Resources)
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    requests: Counter[str] = field(default_factory=Counter)  # answered ones, by kind
    refused: int = 0
    loaded: int = 0  # how often a run was loaded
    _engaged: ActiveRun | None = None
    _run: str = ""

    def __post_init__(self) -> None:
        if self.kit is not None:
            file = self.silo.state / "letters-seen.json"
            self._inbox = Inbox(self.silo.name, "request", self.kit.known, file)
            self._outbox = Outbox(self.silo.name, self.kit.signing)

    def answer(self, data: bytes) -> bytes:
        """The answer to a letter, or to the question who is here."""
        if data == HELLO:
            return SiloReply(self.silo.name, self.session).pack()
        if self.kit is None:
            return self._answered(data, None).pack()
        try:
            stamp, body = self._inbox.open(data)
        except Untrusted as error:
            self._refuse(f"{error}.", "")
            return SiloReply(self.silo.name, self.session, error=f"{error}.").pack()
        return self._outbox.reply(self._answered(body, stamp.run).pack(), stamp)

    def _answered(self, data: bytes, run: str | None) -> SiloReply:
        """The answer to a letter, which was signed for this run."""
        try:
            letter = Envelope.parse(data)
            if run not in (None, letter.run):
                raise RefusedError("the letter is of another run than it was signed for.")
            engaged = self._engagement(letter)
            body = engaged.reply(letter.request) if letter.request else b""
            self.requests["round" if body else "profile"] += 1
        except Refused as error:  # which is noted where it is raised
            self._refuse(str(error))
            return SiloReply(self.silo.name, self.session, error=str(error))
        except UserError as error:
            self._refuse(str(error), run or "")
            tells = self.silo.policy.share_error_texts or isinstance(error, RefusedError)
            return SiloReply(self.silo.name, self.session, error=str(error) if tells else WITHHELD)
        except Exception:  # whatever a server sends, it does not end this process
            log.exception("a letter could not be answered")
            return SiloReply(self.silo.name, self.session, error=WITHHELD)
        return SiloReply(self.silo.name, self.session, engaged.site.profile, body=body)

    def _refuse(self, reason: str, run: str | None = None) -> None:
        """Count a refusal, and say it; run: of which it is, if it must be noted, too."""
        self.refused += 1
        log.warning("refused: %s", reason)
        if run is not None:
            note(self.silo.state, run, "refused", reason)

    def _engagement(self, letter: Envelope) -> ActiveRun:
        """This silo's side of a run, made when the run or its settings are new."""
        if letter.version != hanse.__version__:
            raise RefusedError(
                f"the server has hanse {letter.version}, this silo {hanse.__version__}; "
                "install the same."
            )
        engaged = self._engaged
        if engaged is None or (self._run, engaged.settings) != (letter.run, letter.settings):
            log.info("run %s: loading", letter.run)
            self._engaged = None  # two would need twice the memory
            engaged = self._engaged = self._engage(letter)
            self._run = letter.run
            self.loaded += 1
        return engaged

    def about(self) -> dict[str, Any]:
        """Of which run and round a log line is."""
        round = self._engaged.round if self._engaged else 0
        return {"run": self._run, "round": round, "silo": self.silo.name}

    def figures(self) -> Iterator[Figure]:
        """What it has done since it was started."""
        round = self._engaged.round if self._engaged else 0
        yield Figure("hanse_round", "The round of the last request", round, {})
        for kind, count in dict(self.requests).items():
            yield Figure("hanse_requests", "Answered requests", count, {"kind": kind}, True)
        yield Figure("hanse_refusals", "Letters that were refused", self.refused, {}, True)
        yield Figure("hanse_loads", "How often a run was loaded", self.loaded, {}, True)
        yield Figure("hanse_memory_bytes", "The most memory it has held", peak_memory(), {})

    def _engage(self, letter: Envelope) -> ActiveRun:
        made: list[ClientEndpoint] = []

        def rows(experiment: Experiment) -> RowCounts:
            site, counts = _site(self.silo, experiment, letter, self.held)
            made.append(site)
            return counts

        gate = Guard(self.silo, self.kit, letter.run, sealed=False)
        gate.accept(letter.settings.encode(), rows, letter.model)
        return ActiveRun(letter.settings, made[0], gate)


def _site(
    silo: SiloSettings, experiment: Experiment, letter: Envelope, held: Resources
) -> tuple[ClientEndpoint, RowCounts]:
    """A silo's side of the run that a letter is about, and how many rows it has.

    Raises RefusedError for other rows than the server divides.
    """
    if letter.precision:
        held.chosen |= read({experiment.model.noted: _plain(letter.precision)})
    experiment = experiment.model_copy(update={"clients_per_pass": "off"})
    division = held.division(experiment)
    if not experiment.brings_own_data and division.digest != letter.rows:
        raise RefusedError(
            f"the rows of {silo.name} are not those that the server divides among its silos; bring "
            "the same file, or give each silo its own in the experiment's clients."
        )
    mine = replace(division, validation=[], test=[])
    made = simulate(experiment, held, mine, only=(silo.name,))
    for remark in made.division.remarks:
        log.warning("%s", remark)
    memories = silo.state / "runs" / letter.run
    site = made.site(memories, silo.name, silo.checkpoint_seconds)
    splits = made.silos[silo.name].examples
    counts = RowCounts(len(splits["train"]), len(splits["test"]))
    told = rounded(counts.train, silo.policy.count_rounding)
    return replace(site, profile=replace(site.profile, examples=told)), counts


def _plain(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
