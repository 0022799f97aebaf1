"""The guard of a silo: every job, request and reply passes its policy and the agreement here."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from hanse.deployment.silo.agreement import AgreementMember
from hanse.deployment.silo.delivered_models import FOLDER as MODELS
from hanse.deployment.silo.delivered_models import DeliveredModels
from hanse.deployment.silo.emulators import whole_model_remark
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.file_limits import admit_files
from hanse.deployment.silo.job import SHOWN, Job, JobRefusedError, RowCounts, received
from hanse.deployment.silo.model_download import LacksModel, ModelDownload
from hanse.deployment.silo.refusals import code_refusals
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment, build_aggregator, build_algorithm
from hanse.federation.messages import AGREED, PREPARE, Reply, Request
from hanse.learners.models.emulators import record
from hanse.learners.models.model_hash import hash_of
from hanse.security.kits import SiloKit
from hanse.tensors.serialization import MessageError

log = logging.getLogger(__name__)

Respond = Callable[[bytes], bytes]
Value = TypeVar("Value")


@dataclass
class Guard:
    """Guards one silo in one run; the worker has already checked that messages are the server's.

    kit: the keys of the other silos, for the agreement; None for a server on this machine.
    models: the base models that servers have sent. enforcer: applies the silo's policy.
    job_digest: of a checked job: the run, the experiment's text, this silo's base model, and what
        else the server says to all silos. Models beside it are left out, since a silo may bring
        others.
    """

    silo: SiloSettings
    kit: SiloKit | None
    run: str
    models: DeliveredModels = field(init=False)
    enforcer: PolicyEnforcer = field(init=False)
    job_digest: str = field(init=False, default="")
    _job: Job | None = field(init=False, default=None)
    _agreement: AgreementMember | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        silo = self.silo
        self.models = DeliveredModels(silo.state / MODELS)
        self.enforcer = PolicyEnforcer(silo.name, silo.policy, self.run, silo.state)

    def check_job(
        self, message: bytes, model: str = "", code: object = None, common: Sequence[str] = ()
    ) -> Job:
        """Read a job and check everything that can be checked before this silo's rows are read.

        message: the experiment's text, which is the server's first message.
        model: the hash of the server's base model, if the silo must have the same one, or be sent
            it.
        code: the hashes of the server's parts from outside the package, by file and class.
        common: other texts that an honest server sends to all silos alike.
        Raises JobRefusedError, after logging it, for a job that the policy does not allow. The base
        model is hashed only for a job whose settings are allowed. Raises LacksModel for an allowed
        job if the server must send its model first.
        """
        self.enforcer.count_job()
        try:
            text = message.decode("utf-8")
        except UnicodeDecodeError:
            raise self.enforcer.refused("the server's experiment is not UTF-8 text.") from None
        try:
            job = received(text, self.silo)
        except JobRefusedError as error:
            raise self.enforcer.refused(str(error)) from None
        self.enforcer.check_settings(job)
        self._check_identities(job)
        self._check_code(job, code if isinstance(code, dict) else {})
        delivered = job.experiment.deployment.deliver_model
        place = self._delivered(model) if delivered else None
        if place is not None:
            job = replace(job, experiment=_with_model(job.experiment, place))
        digest = model if delivered else self._own_model_hash(job, model)
        if not delivered or place is not None:
            self._check_emulator(job.experiment.model.model_name_or_path)
        self._check_named_models(job)
        self.enforcer.begin(text)
        if delivered and place is None:
            raise LacksModel(ModelDownload(self.models, model, self.enforcer))
        self.job_digest = _digest(self.run, text, digest or "", *common)
        return job

    def _own_model_hash(self, job: Job, model: str) -> str | None:
        """The hash of this silo's base model; raises JobRefusedError unless it is allowed.

        model: the hash that it must have; empty if any will do.
        """
        name = job.experiment.model.model_name_or_path
        digest = self._model_hash(name, "model")
        if model and digest and model != digest:
            raise self.enforcer.refused(
                f"{self.silo.name} has another base model than the server: {name!r:.80} is "
                f"{digest[:16]}… here, and {model[:16]}… there; bring the same files, or name "
                "them by `model` in its silo.yaml."
            )
        self.enforcer.check_model(job, digest)
        return digest

    def _delivered(self, model: str) -> Path | None:
        """The place of the model of this hash here; None if the server must send it.

        A silo's own copy is used before one that was sent. Raises JobRefusedError for a model that
        the policy does not allow, or that may not be sent.
        """
        silo = self.silo
        if not re.fullmatch("[0-9a-f]{64}", model):  # it becomes the name of a folder
            raise self.enforcer.refused(
                f"{silo.name} is to be sent a base model, and the server gives no hash of it."
            )
        own = self._model_hash(silo.model, "model") if silo.model else None
        if silo.model and own == model:
            self.enforcer.check_delivery(model, here=True)
            log.info("%s has the server's base model already: nothing is sent", silo.name)
            return Path(silo.model)
        place = self.models.find(model)
        self.enforcer.check_delivery(model, here=place is not None)
        if place is not None:
            log.info("%s was sent the server's base model before: it is used again", silo.name)
        if silo.model:
            log.warning("%s is not the server's base model, and is not used here", silo.model)
        return place

    def _check_emulator(self, name: str) -> None:
        """Raise JobRefusedError unless the policy allows a base model that is an emulator, or not.

        name: of the model, which is on this machine. Logs if the whole model is here, too.
        """
        entry = self._of_model(record.of_model, name, "model")
        self.enforcer.check_emulator(entry is not None)
        if entry and (remark := whole_model_remark(self.silo, self.models.folder, entry)):
            log.warning("%s", remark)

    def _check_named_models(self, job: Job) -> None:
        """Raise JobRefusedError unless the policy allows the models beside the base model."""
        named = job.experiment.models.items()
        hashes = {n: self._model_hash(own.model_name_or_path, f"models.{n}") for n, own in named}
        self.enforcer.check_named_models(job, hashes)

    def accept(self, job: Job, rows: RowCounts) -> None:
        """Take a checked job with these numbers of rows; from now on its requests are answered.

        Raises JobRefusedError, after logging it, if the policy does not allow it.
        """
        self.enforcer.check_rows(job, rows)
        self._agreement = self._agreement_member(job)
        self._job = job

    def answer(self, message: bytes, respond: Respond) -> bytes | None:
        """The reply to a request, made by `respond` if policy and agreement allow it.

        None if the request cannot be read.
        """
        try:
            request = Request.parse(message)
        except MessageError as error:
            self.enforcer.note("refused", str(error))
            return None

        def respond_filtered(request: bytes) -> bytes:
            return self.enforcer.outgoing(Reply.parse(respond(request))).pack()

        try:
            if self._job is None:
                raise self.enforcer.refused(f"{self.silo.name} has taken no job in this run.")
            if request.kind == AGREED and self._agreement is None:
                raise self.enforcer.refused(
                    f"{self.silo.name} takes no part in an agreement in this run."
                )
            self.enforcer.admit(request, self._job.experiment.rounds)
            if request.kind == PREPARE:
                admit_files(self.enforcer, request)
        except JobRefusedError as error:
            kind = "train" if request.kind == AGREED else request.kind  # the server waits for this
            return Reply(self.silo.name, kind, request.round, error=str(error)).pack()
        del request  # or a chunk of a file would be in memory twice
        if self._agreement is None:
            return respond_filtered(message)
        return self._agreement.answer(message, respond_filtered)

    def _check_identities(self, job: Job) -> None:
        """Raise JobRefusedError if the aggregator needs keys of silos that this kit lacks."""
        known = {self.silo.name, *self.kit.silos} if self.kit else set()
        unknown = ", ".join(name for name in job.participants if name not in known)
        if unknown and build_aggregator(job.experiment).needs_identity:
            raise self.enforcer.refused(
                f"{self.silo.name} needs the keys of all silos for the aggregator "
                f"{spec_name(job.experiment.aggregator)}, and does not have those of "
                f"{unknown[:SHOWN]}; there, name a kit in silo.yaml, and run `hanse kit trust "
                "members.pub`."
            )

    def _check_code(self, job: Job, code: Mapping[str, object]) -> None:
        """Raise JobRefusedError unless parts from outside the package are the server's, too."""
        for sentence in code_refusals(self.silo.name, job.experiment, code):
            raise self.enforcer.refused(sentence)

    def _model_hash(self, name: str, setting: str) -> str | None:
        return self._of_model(hash_of, name, setting)

    def _of_model(self, read: Callable[[str], Value], name: str, setting: str) -> Value:
        """The result of reading a model here; raises JobRefusedError for a UserError."""
        try:
            return read(name)
        except UserError as error:  # the server must not learn what lies in this silo's folders
            self.enforcer.note("withheld the text of an error", str(error))
            raise self.enforcer.refused(
                f"{self.silo.name} cannot use the base model {name!r:.80}; its own log says why, "
                f"and `{setting}` in its silo.yaml names the right one."
            ) from None

    def _agreement_member(self, job: Job) -> AgreementMember | None:
        """This silo's part in the agreement; None if the policy wants none.

        None, too, for a rule whose clients compare their requests, whatever the policy says.
        """
        setting, kit = self.silo.policy.agreement, self.kit
        if build_aggregator(job.experiment).agrees:
            rule = spec_name(job.experiment.aggregator)
            log.info("silos compare their requests in the phases of the aggregator %s", rule)
            return None
        if setting == "never" or (setting == "auto" and (kit is None or not kit.silos)):
            return None
        if kit is None or not kit.silos:
            raise self.enforcer.refused(
                f"{self.silo.name} trains only if other silos say that they were sent the same, "
                "and its kit knows none of them; there, run `hanse kit trust members.pub`."
            )
        algorithm = build_algorithm(job.experiment)
        if algorithm.clients_may_differ == "layout" or algorithm.resizes_adapter:
            self._refuse_unless_auto(setting, spec_name(job.experiment.algorithm))
            return None
        return AgreementMember(
            kit.identity,
            self.run,
            job.text,
            self.silo.policy.min_cohort - 1,
            self.enforcer.file("stated"),
            self.enforcer.refused,
        )

    def _refuse_unless_auto(self, setting: str, algorithm: str) -> None:
        """Raise JobRefusedError if silos must agree on what is not the same for any two of them."""
        reason = f"{algorithm} sends each silo tensors of its own layout, which no two can compare"
        if setting != "auto":
            raise self.enforcer.refused(
                f"{self.silo.name} trains only if other silos say that they were sent the same, "
                f"but {reason}; let its owner set policy.agreement to auto or never."
            )
        log.warning("silos do not agree on their requests in this run: %s", reason)


def _with_model(experiment: Experiment, place: Path) -> Experiment:
    """The experiment with the base model in this place."""
    model = replace(experiment.model, model_name_or_path=str(place))
    return experiment.model_copy(update={"model": model})


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
