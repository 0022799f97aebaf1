"""What a client does with a request."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.errors import UserError
from hanse.federation.client_memory import LostMemory, MemoryStore
from hanse.federation.constants import FOLDER, MOST, Constants, ConstantStore
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.task import Task
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request, Update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext


class Lacking(UserError):  # noqa: N818 (said of what is not there)
    """The adapter's constants are not here, and must be sent again."""


OPTIMIZER = "optimizer"  # the learner's place in a client's memory, beside those of the parts
ALGORITHM = "algorithm"


@dataclass
class ClientEndpoint:
    """One client's own side of the federation: its learner, its parts, its memory.

    learner: makes the learner for one request; it gets the context, and the optimizer's memory,
        which it may read and change.
    """

    profile: ClientProfile
    learner: Callable[[RoundContext, Memory], Learner]
    algorithm: Algorithm
    upload: Pipeline
    download: Pipeline
    aggregator: Aggregator
    tasks: Mapping[str, Task]
    store: MemoryStore
    seed: int
    session: dict[str, Any] = field(default_factory=dict)

    @property
    def constants(self) -> ConstantStore:
        """Where this machine keeps constants, for all its clients."""
        return ConstantStore(self.store.folder.parent / FOLDER, MOST)


def respond(site: ClientEndpoint, message: bytes) -> bytes:
    """Answer one request; a mistake that the user can mend comes back as the reply's error.

    Raises LostMemory: a client that has forgotten what was counted must not go on as if it had not.
    """
    request = Request.parse(message)
    reply = Reply(site.profile.name, request.kind, request.round)
    try:
        return replace(reply, update=_answer(site, request)).pack()
    except LostMemory:
        raise
    except Lacking as error:
        return replace(reply, error=str(error), lacks=request.constants).pack()
    except UserError as error:
        return replace(reply, error=str(error)).pack()


def _equip(site: ClientEndpoint, learner: Learner, request: Request) -> None:
    """Let the learner have the constants that the server has."""
    given = Constants.of(request.given)
    if given.digest not in ("", request.constants):
        raise UserError(
            f"{site.profile.name} was sent other constants of the adapter than the request names; "
            "look after the connection to the server."
        )
    if request.constants and not learner.has_constants(request.constants):
        there = given if given.digest else site.constants.find(request.constants)
        if there is None:
            raise Lacking(f"{site.profile.name} no longer has the constants of the adapter.")
        learner.put_constants(there)
    site.constants.keep(given)  # not before the learner has found that they are its own


def _answer(site: ClientEndpoint, request: Request) -> Update:
    context = RoundContext(site.seed, request.round, site.profile.name)
    # Other kinds may follow the round's training, whose draft must outlive them.
    store = site.store
    memory = (store.open if request.kind == "train" else store.look)(request.last_counted_round)
    learner = site.learner(context, memory.setdefault(OPTIMIZER, {}))
    _equip(site, learner, request)
    own = memory.setdefault(ALGORITHM, {})
    client = Client(site.profile, learner, own, site.session, context)
    if request.kind not in ("train", "evaluate"):
        return site.aggregator.handle(request.kind, request.instruction, client)
    # The server encodes an instruction once for all, so no client's name is in its randomness.
    everyone = replace(context, client="")
    tensors = site.download.decode(request.instruction.tensors, request.transform_states, everyone)
    instruction = Instruction(tensors, request.instruction.numbers)
    learner.configure(instruction.numbers)
    if request.kind == "evaluate":
        return _evaluated(site, instruction, client)
    update = site.algorithm.train(instruction, client)
    encoded = site.upload.encode(update.tensors, memory, request.transform_states, context)
    update = site.aggregator.seal(replace(update, tensors=encoded), request.aggregator_note, client)
    return replace(update, keeps_memory=site.store.draft(request.round, memory))


def _evaluated(site: ClientEndpoint, instruction: Instruction, client: Client) -> Update:
    """The client's scores on its own held-out rows, of the model that it would keep."""
    tasks = [task for task in site.tasks.values() if not task.test_only]
    if not tasks or not client.learner.examples("test"):
        return Update(weight=0.0)
    start = time.perf_counter()
    client.learner.load(site.algorithm.personalized(instruction, client))
    numbers: dict[str, float] = {}
    for task in tasks:
        numbers |= task.evaluate(client.learner, "test").metrics
    numbers["seconds"] = time.perf_counter() - start
    return Update({}, numbers, weight=float(len(client.learner.examples("test"))))
