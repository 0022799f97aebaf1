"""The one way into a silo and out: its policy and the agreement around its answers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hanse.deployment.silo.agreement import AgreementMember
from hanse.deployment.silo.enforcement import UNHASHED, PolicyEnforcer
from hanse.deployment.silo.job import Job, Refused, RowCounts, received
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.federation.messages import AGREED, Reply, Request
from hanse.learners.models.model_hash import hash_of
from hanse.security.kits import SiloKit
from hanse.tensors.serialization import MessageError

Respond = Callable[[bytes], bytes]


@dataclass
class Guard:
    """One silo in one run; the worker has checked already that messages are the server's.

    kit: the keys of the other silos, for the agreement; none for a server on this machine.
    """

    silo: SiloSettings
    kit: SiloKit | None
    run: str
    law: PolicyEnforcer = field(init=False)
    _job: Job | None = field(init=False, default=None)
    _witness: AgreementMember | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        silo = self.silo
        self.law = PolicyEnforcer(silo.name, silo.policy, self.run, silo.state)

    def accept(
        self, message: bytes, rows: Callable[[Experiment], RowCounts], model: str = ""
    ) -> Job:
        """The job in the server's first message, which is an experiment's text.

        rows: how many rows this silo has for it.
        model: the hash of the server's base model, if it must be this silo's, too.
        Raises Refused for a job that the policy does not allow; it is in the silo's log. What takes
        longer is done later: the model is hashed, and rows are read, only for a job that passed
        what comes before.
        """
        self.law.count_job()
        try:
            text = message.decode("utf-8")
        except UnicodeDecodeError:
            raise self.law.refused("the server's experiment is not UTF-8 text.") from None
        try:
            job = received(text, self.silo)
        except Refused as error:
            raise self.law.refused(str(error)) from None
        self.law.check(job, UNHASHED, None)
        name = job.experiment.model.model_name_or_path
        held = self._model_hash(name)
        if model and held and model != held:
            raise self.law.refused(
                f"{self.silo.name} has another base model than the server: {name!r:.80} is "
                f"{held[:16]}… here, and {model[:16]}… there; bring the same files, or name "
                "them by `model` in its silo.yaml."
            )
        self.law.check(job, held, None)
        self.law.begin(text)
        self.law.check(job, held, rows(job.experiment))
        self._witness = self._agreeing(text)
        self._job = job
        return job

    def answer(self, message: bytes, respond: Respond) -> bytes | None:
        """The reply to a request, made by `respond` if nothing speaks against it.

        None: the request cannot be read, and gets no reply.
        """
        try:
            request = Request.parse(message)
        except MessageError as error:
            self.law.note("refused", str(error))
            return None

        def filtered(asked: bytes) -> bytes:
            return self.law.outgoing(Reply.parse(respond(asked))).pack()

        try:
            if self._job is None:
                raise self.law.refused(f"{self.silo.name} has taken no job in this run.")
            if request.kind == AGREED and self._witness is None:
                raise self.law.refused(
                    f"{self.silo.name} takes no part in an agreement in this run."
                )
            self.law.admit(request, self._job.experiment.rounds)
        except Refused as error:
            kind = "train" if request.kind == AGREED else request.kind  # what is waited for
            return Reply(self.silo.name, kind, request.round, error=str(error)).pack()
        return self._witness.answer(message, filtered) if self._witness else filtered(message)

    def _model_hash(self, name: str) -> str | None:
        try:
            return hash_of(name)
        except UserError as error:  # what lies in a folder here is not the server's to know
            self.law.note("withheld the text of an error", str(error))
            raise self.law.refused(
                f"{self.silo.name} cannot use the base model {name!r:.80}; its own log says why, "
                "and `model` in its silo.yaml names the right one."
            ) from None

    def _agreeing(self, text: str) -> AgreementMember | None:
        """This silo's part in the agreement; none if it takes no part in one."""
        wanted, kit = self.silo.policy.agreement, self.kit
        if wanted == "never" or (wanted == "auto" and (kit is None or not kit.silos)):
            return None
        if kit is None or not kit.silos:
            raise self.law.refused(
                f"{self.silo.name} trains only if other silos say that they were sent the same, "
                "and its kit knows none of them; there, run `hanse kit trust members.pub`."
            )
        return AgreementMember(
            self.silo.name,
            self.run,
            text,
            kit.signing,
            {name: public.signing for name, public in kit.silos.items()},
            self.silo.policy.min_cohort - 1,
            self.law.file("stated"),
            self.law.refused,
        )
