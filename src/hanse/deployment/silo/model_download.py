"""The base model on its way from the server to a silo that lacks it."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from hanse.deployment.silo.delivered_models import DeliveredModels, WrongModelError
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.file_limits import GB, is_first_offer
from hanse.deployment.silo.job import JobRefusedError
from hanse.errors import UserError
from hanse.federation.delivery.file_store import FileStore, FullDiskError
from hanse.federation.delivery.files import BEFORE_ROUNDS, HELD, OfferedFile, offered
from hanse.federation.messages import PREPARE, Reply, Request, Update
from hanse.learners.models.emulators.record import FILE as EMULATOR
from hanse.learners.models.sendable_files import is_model, sendable
from hanse.tensors.serialization import Content, MessageError

log = logging.getLogger(__name__)

MB = 10**6  # bytes
TENTHS = 10  # of the model, each of which is logged
WRONG = "what came is not a model of the hash that was announced, or none that hanse loads"
FULL = "its disk is too full, and its owner must free some space"
UNWRITTEN = "its disk could not be read or written"


def brings_model(request: Content) -> bool:
    """True if a request offers the base model, or brings a part of it."""
    try:
        heading = Request.heading(request)
    except MessageError:
        return False
    return (heading.kind, heading.round) == (PREPARE, BEFORE_ROUNDS)


@dataclass
class ModelDownload:
    """Takes the parts of one model, of a job that the silo's policy allows.

    digest: the hash of the model, by which it is kept. complete: whether all of it is here.
    """

    models: DeliveredModels
    digest: str
    enforcer: PolicyEnforcer
    complete: bool = False
    _store: FileStore = field(init=False)
    _offer: Sequence[OfferedFile] = ()
    _logged: int = -1  # tenths

    def __post_init__(self) -> None:
        self._store = FileStore(self.models.parts(self.digest))

    def reply(self, message: Content) -> bytes:
        """Keep the part of the model that a request brings; the reply says what is here.

        Raises JobRefusedError for what the policy does not allow, and UserError for what breaks
        the protocol.
        """
        request = Request.parse(message)
        files = offered(request)
        self._admit(files)
        sizes = [file.size for file in files]
        held = sizes if self.complete else self._take(request)
        self._log(sum(held), sum(sizes))
        if held == sizes and not self.complete:
            self._settle(files)
        update = Update({HELD: torch.tensor(held, dtype=torch.int64)})
        return Reply(self.enforcer.name, PREPARE, BEFORE_ROUNDS, update).pack()

    def _take(self, request: Request) -> list[int]:
        """Keep the chunk in a request; returns the bytes of each file that are here."""
        try:
            held: list[int] = self._store.take(request).tensors[HELD].tolist()
        except UserError as error:
            if not _is_full(error):
                raise
            raise self._refused(error, FULL) from None
        return held

    def lacking(self) -> bytes:
        """The reply by which the server learns that the model must be sent."""
        return Reply(self.enforcer.name, PREPARE, BEFORE_ROUNDS, lacks=self.digest).pack()

    def _admit(self, files: Sequence[OfferedFile]) -> None:
        """Raise JobRefusedError for files that are no model, too large, or not the first offer."""
        silo, most = self.enforcer.name, self.enforcer.policy.max_model_gb
        names = [file.name for file in files]
        if strange := [name for name in names if not sendable(name)]:
            raise self.enforcer.refused(
                f"{silo} refuses the server's model: it has a file {strange[0]!r:.80}, and only "
                "settings, tokenizer and safetensors files of the usual names are taken."
            )
        if not is_model(names):
            raise self.enforcer.refused(
                f"{silo} refuses the server's model: it lacks config.json or its weights."
            )
        self.enforcer.check_emulator(EMULATOR in names)
        total = sum({file.digest: file.size for file in files}.values())
        if total > most * GB:
            raise self.enforcer.refused(
                f"{silo} refuses the server's model: it has {total:,} bytes, and its policy has "
                f"max_model_gb {most:g}."
            )
        self._keep_to(files, round(most * GB))

    def _keep_to(self, files: Sequence[OfferedFile], most: int) -> None:
        """Let these be all the files of this model, and keep at most `most` bytes of other models.

        Raises JobRefusedError if a run has offered others before; what runs before it have left of
        others is removed, so that the bound holds over any number of runs and restarts.
        """
        if self._offer == files:
            return
        record = self.enforcer.file("offered_model")
        if self._offer or not is_first_offer(files, record):
            raise self.enforcer.refused(
                f"{self.enforcer.name} refuses the server's model: other files were offered before "
                "in this run."
            )
        self.models.keep_parts(self.digest, {file.digest for file in files})
        self.models.prune(self.digest, most)
        self._offer = files

    def _settle(self, files: Sequence[OfferedFile]) -> None:
        """Keep the model, whose files are all here; raises JobRefusedError if it is not right."""
        paths = self._store.find({file.name: file.digest for file in files})
        try:
            self.models.settle(self.digest, paths)
        except WrongModelError as error:
            raise self._refused(error, WRONG) from None
        except UserError as error:
            raise self._refused(error, FULL if _is_full(error) else UNWRITTEN) from None
        self.complete = True

    def _refused(self, error: UserError, reason: str) -> JobRefusedError:
        """A refusal whose sentence may leave; that of the error may name this silo's folders."""
        self.enforcer.note("withheld the text of an error", str(error))
        return self.enforcer.refused(
            f"{self.enforcer.name} refuses the server's model: {reason}; its own log says why."
        )

    def _log(self, done: int, total: int) -> None:
        """Log each tenth of the model."""
        tenths = TENTHS * done // total
        if tenths > self._logged:
            self._logged = tenths
            amount = f"{done / MB:,.1f} of {total / MB:,.1f} MB"
            log.info("receiving the model %s: %s", self.digest[:16], amount)


def _is_full(error: UserError) -> bool:
    """True if a disk without space is the reason of an error."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, FullDiskError)


class LacksModel(UserError):  # noqa: N818 (the condition, not an error of the user's)
    """The base model that a server delivers is not on this machine; the server must send it."""

    def __init__(self, download: ModelDownload) -> None:
        super().__init__(f"the model {download.digest} is not here yet.")
        self.download = download
