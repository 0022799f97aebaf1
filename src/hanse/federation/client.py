"""The client half of the federation: answers to the server's requests."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.errors import UserError
from hanse.federation import constants
from hanse.federation.accounting.silo_account import admit_training
from hanse.federation.client_memory import LostMemory, MemoryStore
from hanse.federation.client_scores import kept_model, refuse_scores, scores
from hanse.federation.constants import MOST, Constants, ConstantStore
from hanse.federation.delivery import files
from hanse.federation.delivery.file_store import FileStore, MissingFile
from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import AT_SENDER
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.task import Task
from hanse.federation.kept_update import KeptUpdate
from hanse.federation.messages import (
    PREPARE,
    ClientProfile,
    Instruction,
    Reply,
    Request,
    Update,
)
from hanse.federation.method import Method
from hanse.federation.releases import (
    Mechanisms,
    ReleaseLog,
    find_update,
    keep_update,
    mechanisms,
    release_key,
)
from hanse.federation.request_digest import request_digest
from hanse.journal.commitments import Commitments
from hanse.observability.requests import log_event
from hanse.randomness import RoundContext
from hanse.security.identity import Identity
from hanse.tensors.serialization import Content, MessageError


class MissingConstants(UserError):  # noqa: N818 (the condition, not an error of the user's)
    """The adapter's constants are not on this machine; the server must send them again."""


OPTIMIZER = "optimizer"  # the learner's entry in a client's memory, beside those of the transforms
ALGORITHM = "algorithm"
COMMITMENTS = "sums.json"  # to sums and to the memory behind each update, beside its memory


@dataclass
class ClientEndpoint:
    """One client of the federation: its learner, its copy of the method, its memory.

    learner: makes the learner for one request, from the context and the optimizer's state, which
        the learner may change.
    files: the files of all runs on this machine; None: those of this run, beside its memory.
    rounds, clients: the number of rounds of the run, and of clients that a round waits for; 0: not
        known.
    job, least_cohort, quorum, participants: as in `Client`.
    refused: called with the sentence of a refusal by the aggregator's client half.
    kept: the update of a round that may be repeated; None: the client trains again.
    most_epsilon: the largest ε of what it releases in the run, if it draws noise; None: any.
    """

    profile: ClientProfile
    learner: Callable[[RoundContext, Memory], Learner]
    method: Method
    tasks: Mapping[str, Task]
    store: MemoryStore
    seed: int
    session: dict[str, Any] = field(default_factory=dict)
    identity: Identity | None = None
    release_log: ReleaseLog | None = None
    files: FileStore | None = None
    rounds: int = 0
    clients: int = 0
    job: str = ""
    least_cohort: int = 1
    quorum: int = 1
    participants: Collection[str] = ()
    refused: Callable[[str], object] = lambda sentence: None
    kept: KeptUpdate | None = None
    most_epsilon: float | None = None

    @property
    def releases(self) -> ReleaseLog:
        """The client's releases of updates with noise."""
        return self.release_log or ReleaseLog(self.store.folder, private=True)

    def context(self, round: int) -> RoundContext:
        """The context of one round at this client."""
        return RoundContext(self.seed, round, self.profile.name, self.rounds, self.clients)

    @property
    def constants(self) -> ConstantStore:
        """The constants that all clients of this machine share."""
        return ConstantStore(self.store.folder.parent / constants.FOLDER, MOST)

    @property
    def file_store(self) -> FileStore:
        """The files that all clients of this machine share."""
        return self.files or FileStore(self.store.folder.parent / files.FOLDER)


def respond(endpoint: ClientEndpoint, message: Content) -> bytes:
    """Answer one request. A UserError becomes the error of the reply.

    Raises LostMemory: a client without the memory of a counted round must not continue.
    """
    request = Request.parse(message)
    reply = Reply(endpoint.profile.name, request.kind, request.round, attempt=request.attempt)
    try:
        return replace(reply, update=_answer(endpoint, request)).pack()
    except LostMemory:
        raise
    except MissingConstants as error:
        return replace(reply, error=str(error), lacks=request.constants).pack()
    except MissingFile as error:
        return replace(reply, error=str(error), lacks=error.digest).pack()
    except RefusalError as error:
        endpoint.refused(str(error))
        return replace(reply, error=str(error)).pack()
    except UserError as error:
        return replace(reply, error=str(error)).pack()


def train_only(endpoint: ClientEndpoint, request: Request) -> Update:
    """The update of a first training, before any transform; the client remembers nothing of it."""
    client = _client(endpoint, request, {})
    return endpoint.method.algorithm.train(_instruction(endpoint, request, client), client)


def own_model(endpoint: ClientEndpoint, request: Request) -> Learner:
    """The learner of the model that a client would keep after the round of a request to score."""
    client = _client(endpoint, request, endpoint.store.look(request.last_counted_round))
    return kept_model(endpoint.method.algorithm, _instruction(endpoint, request, client), client)


def _answer(endpoint: ClientEndpoint, request: Request) -> Update:
    if request.kind == PREPARE:
        return _take_files(endpoint, request)
    noise = _noise(endpoint, request)
    key = _key(endpoint, request, noise)
    encoded = _known(endpoint, request, key, noise)
    # Only training may drop drafts: this round's draft must outlive the requests that follow it.
    trains = request.kind == "train" and encoded is None
    read_memory = endpoint.store.open if trains else endpoint.store.look
    if trains and endpoint.kept is not None:
        endpoint.kept.drop()  # with its draft
    memory = read_memory(request.last_counted_round)
    client = _client(endpoint, request, memory)
    method = endpoint.method
    if request.kind not in ("train", "evaluate"):
        return method.aggregator.handle(request.kind, request.instruction, client)
    if request.kind == "evaluate":
        refuse_scores(method)
        return scores(endpoint.tasks, method, _instruction(endpoint, request, client), client)
    method.aggregator.admit(request.aggregator_note, client)
    if encoded is None:
        noise = admit_training(endpoint.releases, method, client, noise, endpoint.most_epsilon)
        encoded = _train(endpoint, request, client, memory)
        _keep(endpoint, request, key, noise, encoded)
    return _sealed(endpoint, request, client, encoded)


def _key(endpoint: ClientEndpoint, request: Request, noise: Mechanisms) -> str:
    """The hash of a train request whose update may be asked for again; else empty."""
    repeated = endpoint.kept is not None and endpoint.method.aggregator.has_phases
    if not noise and not (repeated and request.kind == "train"):
        return ""
    return release_key(request, endpoint.method)


def _known(
    endpoint: ClientEndpoint, request: Request, key: str, noise: Mechanisms
) -> Update | None:
    """The encoded update that the client has for a request; None if it must train."""
    if endpoint.kept is not None:
        endpoint.kept.forget(request.round)
    if noise:
        return find_update(endpoint.releases, request, key)
    return endpoint.kept.find(key) if endpoint.kept is not None else None


def _keep(
    endpoint: ClientEndpoint, request: Request, key: str, noise: Mechanisms, encoded: Update
) -> None:
    """Keep an encoded update for a request that may come again; durably if it has noise in it."""
    name = endpoint.profile.name
    if noise:
        keep_update(endpoint.releases, request, key, name, noise, encoded)
    elif key and endpoint.kept is not None:
        endpoint.kept.keep(request, key, name, encoded)


def _sealed(endpoint: ClientEndpoint, request: Request, client: Client, encoded: Update) -> Update:
    """An encoded update as it leaves the client."""
    sealed = endpoint.method.seal(encoded, request.aggregator_note, client)
    return replace(sealed, keeps_memory=encoded.keeps_memory)


def _noise(endpoint: ClientEndpoint, request: Request) -> Mechanisms:
    """The mechanisms that draw noise when this request is answered."""
    if request.kind != "train":
        return ()
    upload = endpoint.method.pipelines.upload
    context = endpoint.context(request.round)
    return mechanisms([upload], AT_SENDER, request.transform_states, context)


def _take_files(endpoint: ClientEndpoint, request: Request) -> Update:
    if not endpoint.method.sends_files:
        raise UserError("the server offers files, and the parts of this run have none.")
    return endpoint.file_store.take(request)


def _client(endpoint: ClientEndpoint, request: Request, memory: dict[str, Memory]) -> Client:
    """The client of a request, with its part of the memory and the adapter's constants."""
    context = endpoint.context(request.round)
    learner = endpoint.learner(context, memory.setdefault(OPTIMIZER, {}))
    for name, model in learner.models.items():
        model.load(model.initial())  # another client may have trained the same adapter
        model.keep_optimizer_state(memory.setdefault(f"{OPTIMIZER}.{name}", {}))
    _put_constants(endpoint, learner, request)
    aggregator = endpoint.method.aggregator
    compares = aggregator.agrees and request.kind == "train"
    return Client(
        endpoint.profile,
        learner,
        memory.setdefault(ALGORITHM, {}),
        endpoint.session,
        context,
        endpoint.identity if aggregator.needs_identity else None,
        endpoint.file_store.find(request.files),
        request_digest(request) if compares else b"",
        endpoint.job,
        endpoint.least_cohort,
        max(endpoint.quorum, endpoint.method.least_updates(context)),
        endpoint.participants,
        endpoint.store.digest(request.last_counted_round) if compares else "",
        Commitments(endpoint.store.folder / COMMITMENTS) if aggregator.agrees else None,
    )


def _instruction(endpoint: ClientEndpoint, request: Request, client: Client) -> Instruction:
    """The request's instruction, decoded; its numbers configure the client's learner."""
    # The server encodes an instruction once for all clients, so its randomness names none of them.
    context = replace(client.context, client="")
    update = Update(request.instruction.tensors, request.instruction.numbers)
    try:
        download = endpoint.method.pipelines.with_files(client.files).download
        update = download.decode(update, request.transform_states, context)
        instruction = Instruction(dict(update.tensors), update.numbers)
    except MessageError as error:
        raise UserError(f"the instruction cannot be decoded: {error}.") from None
    client.learner.configure(update.numbers)
    return instruction


def _put_constants(endpoint: ClientEndpoint, learner: Learner, request: Request) -> None:
    """Give the learner the constants that the request names."""
    sent = Constants.of(request.given)
    if sent.digest not in ("", request.constants):
        raise UserError(
            f"{endpoint.profile.name} was sent other constants of the adapter than the request "
            "names; look after the connection to the server."
        )
    # Without a hash the learner must have none, or those of an earlier request would stay.
    if not learner.has_constants(request.constants):
        constants = sent if sent.digest else endpoint.constants.find(request.constants)
        if constants is None:
            name = endpoint.profile.name
            raise MissingConstants(f"{name} no longer has the constants of the adapter.")
        learner.put_constants(constants)
    endpoint.constants.keep(sent)  # only after the learner has accepted them


def _train(
    endpoint: ClientEndpoint, request: Request, client: Client, memory: dict[str, Memory]
) -> Update:
    """Train and encode; the memory becomes the draft of this round."""
    method, instruction = endpoint.method, _instruction(endpoint, request, client)
    update = method.algorithm.train(instruction, client)
    log_event("trained", "trained: %s", _numbers(update))
    upload = method.pipelines.with_files(client.files).upload
    update = upload.encode(update, memory, request.transform_states, client.context)
    log_event("encoded", "encoded: %d tensors", len(update.tensors))
    return replace(update, keeps_memory=endpoint.store.draft(request.round, memory))


def _numbers(update: Update) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in update.numbers.items())
