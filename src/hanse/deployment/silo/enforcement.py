"""Apply a silo's policy to jobs, requests and replies, and log what was refused."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hanse import atomic_files
from hanse.deployment.silo.activity import Activity, prune
from hanse.deployment.silo.job import Job, JobRefusedError, RowCounts
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import (
    delivery_refusals,
    emulator_refusals,
    model_refusals,
    named_model_refusals,
    refusal,
    row_refusals,
    settings_refusals,
)
from hanse.errors import UserError
from hanse.federation.messages import AGREED, PREPARE, Instruction, Reply, Request, Update
from hanse.journal import record_files
from hanse.journal.records import RefusalRecord
from hanse.observability.requests import current_request, purpose
from hanse.tensors import json_text

COUNTS = {"examples", "tokens"}  # numbers that reveal how many rows a silo has, and how long
LARGEST = 16 * 2**20  # bytes of the log, after which it is renamed and a new one is begun
WITHHELD = "it could not do what was asked; the reason is in its own log"


@dataclass
class PolicyEnforcer:
    """Applies one silo's policy in one run.

    name: the silo's name. run: the run's name, for the log and for counting its requests.
    folder: the folder of the log (refusals.jsonl) and of the counts.
    """

    name: str
    policy: Policy
    run: str
    folder: Path
    clock: Callable[[], float] = time.time
    _activity: Activity = field(init=False)
    _asked: dict[str, list[str]] = field(init=False)  # hashes of requests, by kind and round
    _dropped: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)  # the policy's own sentences, which may leave

    def __post_init__(self) -> None:
        self._asked = _read_requests(self.file("asked"))
        self._activity = Activity(self.folder / "activity.json", self.clock)

    def count_job(self) -> None:
        """Raise JobRefusedError if too many jobs came in 24 hours.

        Refused and repeated jobs count, since each must be read and may be loaded.
        """
        most = self.policy.max_requests_per_day
        if not self._activity.admit("jobs", secrets.token_hex(8), most):
            raise self.refused(
                f"{self.name} refuses this job unread: {most} others came in the last 24 hours; "
                "its policy has max_requests_per_day."
            )

    def begin(self, settings: str) -> None:
        """Raise JobRefusedError if too many jobs began in 24 hours, under any run names.

        settings: the experiment's text. The same run with other settings is another job.
        """
        job = hashlib.sha256(f"{self.run}\n{settings}".encode()).hexdigest()[:32]
        most = self.policy.max_runs_per_day
        if not self._activity.admit("runs", job, most):
            raise self.refused(
                f"{self.name} refuses this job: {most} others began in the last 24 hours; its "
                "policy has max_runs_per_day."
            )
        prune(self.folder, {self.file("asked").stem.rpartition("-")[2], self.run}, self.clock)

    def check_settings(self, job: Job) -> None:
        """Raise JobRefusedError, with all reasons, unless the policy allows a job's settings."""
        self._refuse_for(settings_refusals(self.policy, job))

    def check_model(self, job: Job, model_hash: str | None) -> None:
        """Raise JobRefusedError unless the policy allows a job's base model.

        model_hash: of the model on this machine; None if it is not here.
        """
        self._refuse_for(model_refusals(self.policy, job.experiment, model_hash))

    def check_delivery(self, model_hash: str, here: bool) -> None:
        """Raise JobRefusedError unless the policy allows the base model that a server sends.

        model_hash: of that model. here: whether it is on this machine, and need not be sent.
        """
        self._refuse_for(delivery_refusals(self.policy, model_hash, here))

    def check_emulator(self, emulator: bool) -> None:
        """Raise JobRefusedError unless the policy allows a base model that is an emulator, or not.

        emulator: whether the model has the record of one, or the offer of its files has.
        """
        self._refuse_for(emulator_refusals(self.policy, emulator))

    def check_named_models(self, job: Job, hashes: Mapping[str, str | None]) -> None:
        """The same for the models beside the base model, by name."""
        self._refuse_for(named_model_refusals(self.policy, job.experiment, hashes))

    def check_rows(self, job: Job, rows: RowCounts) -> None:
        """Raise JobRefusedError for too much work, or for fewer rows than the policy asks for."""
        self._refuse_for(row_refusals(self.policy, job.experiment, rows))

    def _refuse_for(self, reasons: Iterator[str]) -> None:
        if sentence := refusal(self.name, reasons):
            raise self.refused(sentence)

    def admit(self, request: Request, rounds: int) -> None:
        """Raise JobRefusedError unless a request is within the accepted job and the limits.

        rounds: the number of rounds of the job. A request is recorded on disk before it is
        answered. The same request again, from a server that was killed or paused, tells the server
        nothing new and is not counted; nor is the message that the others agree, nor a part of a
        file, which `file_limits` admits. Phases of an aggregator are repeated with other contents
        whenever a round is paused, so `max_tries` counts neither them nor an aggregator's notes.
        """
        if not 0 <= request.round <= rounds:
            raise self.refused(
                f"{self.name} refuses round {request.round}: the job has {rounds} rounds."
            )
        if request.kind in (AGREED, PREPARE):
            return
        limited = request.kind in ("train", "evaluate")
        content = replace(request, aggregator_note=Instruction(), attempt=0) if limited else request
        whole, digest = (hashlib.sha256(r.pack()).hexdigest() for r in (request, content))
        former = self._asked.get(key := f"{request.kind} {request.round}", [])
        if limited and digest not in former and len(former) >= self.policy.max_tries:
            raise self.refused(
                f"{self.name} refuses to {request.kind} in round {request.round} once more, with "
                f"something else; its policy has max_tries {self.policy.max_tries}."
            )
        most = self.policy.max_requests_per_day
        if not self._activity.admit("requests", whole[:32], most):
            raise self.refused(
                f"{self.name} refuses a request {purpose(request.kind)} in round {request.round}: "
                f"{most} requests came in the last 24 hours; its policy has max_requests_per_day."
            )
        if digest not in former:
            self._asked[key] = [*former, digest]
            asked = json.dumps(self._asked).encode()
            atomic_files.write(self.file("asked"), asked, private=True)

    def outgoing(self, reply: Reply) -> Reply:
        """The reply without numbers that are not allowed to leave, and without texts of errors."""
        error = reply.error
        if error and not self.policy.share_error_texts and error not in self._refused:
            self.note("withheld the text of an error", error)
            error = WITHHELD
        numbers, step = leaving(self.policy, reply.update), self.policy.count_rounding
        numbers |= {name: rounded(numbers[name], step) for name in COUNTS & numbers.keys()}
        weight = reply.update.weight
        if reply.kind == "evaluate" and weight:  # the number of held-out rows
            weight = float(rounded(weight, step))
        for name in sorted(reply.update.numbers.keys() - numbers.keys() - self._dropped):
            self._dropped.add(name)
            self.note("dropped a number", f"{name} may not leave by policy.metrics")
        update = replace(reply.update, numbers=numbers, weight=weight)
        return replace(reply, error=error, update=update)

    def refused(self, reason: str) -> JobRefusedError:
        """A refusal, written into the silo's log; its sentence may be sent to the server."""
        self._refused.add(reason)
        self.note("refused", reason)
        return JobRefusedError(reason)

    def note(self, what: str, reason: str) -> None:
        """Append a line to the silo's log of refusals, durably."""
        note(self.folder, self.run, what, reason, self.clock)

    def file(self, kind: str) -> Path:
        """The file of one kind for this run."""
        run = hashlib.sha256(self.run.encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{run}.json"


def note(
    folder: Path, run: str, what: str, reason: str, clock: Callable[[], float] = time.time
) -> None:
    """Append a line to the log of refusals in a silo's state, durably."""
    log = folder / "refusals.jsonl"
    if log.exists() and log.stat().st_size > LARGEST:
        log.replace(log.with_name("refusals.1.jsonl"))
    line = record_files.line(RefusalRecord(clock(), run, what, reason, current_request()))
    atomic_files.append(log, line, private=True)


def rounded(count: float, step: int) -> int:
    """Round a count that leaves the silo to the nearest multiple of `step`, at least one `step`."""
    return max(step, step * round(count / step))


def leaving(policy: Policy, update: Update) -> dict[str, float]:
    """The numbers of an update that may leave the silo."""
    return {name: value for name, value in update.numbers.items() if policy.allows_number(name)}


def _read_requests(file: Path) -> dict[str, list[str]]:
    if (data := atomic_files.read(file)) is None:
        return {}
    try:
        requests: Any = json_text.parse(data)
        return {str(key): [str(digest) for digest in former] for key, former in requests.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{file}, the record of what this silo was asked, cannot be read; bring it back from a "
            "copy, or remove it."
        ) from None
