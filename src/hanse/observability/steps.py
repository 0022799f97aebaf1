"""The steps of long work, as those who do the work report them; `step_text` turns them into text.

`done` and `total` count units of the work; a total of 0 means that the number is not known. The
`identity` of a step is the same in all steps of the same work, however far that is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any


class Activity(Enum):
    """A kind of work. Its subject, if it has one: a name of a model, file, data set, split …"""

    LOADING_MODEL = auto()
    CONVERTING_MODEL = auto()
    LOADING_DATASET = auto()  # from the hub
    READING_FILE = auto()
    PARTITIONING = auto()
    TOKENIZING = auto()
    EMBEDDING = auto()
    MEASURING_MACHINE = auto()
    MEASURING_CLIENTS_PER_PASS = auto()
    SENDING_FILE = auto()
    AGGREGATING = auto()
    SCORING = auto()
    GENERATING = auto()
    SAVING_ROUND = auto()
    REOPENING_ADAPTER = auto()
    MERGING_ADAPTER = auto()
    DISTILLING = auto()
    WRITING_REPORT = auto()
    OPENING_TRACKER = auto()
    CLOSING_TRACKER = auto()


class SiloState(Enum):
    """The state of a silo, as far as its server knows."""

    NEVER_SEEN = auto()
    GONE = auto()
    IDLE = auto()
    RECEIVING = auto()  # the base model
    WORKING = auto()


@dataclass(frozen=True)
class Runs:
    """Runs of one command that are finished."""

    done: int
    total: int


@dataclass(frozen=True)
class FinishedRound:
    """The seconds of one round, and its bytes down to the clients and up from them."""

    seconds: float
    down: float
    up: float


@dataclass(frozen=True)
class Rounds:
    """Rounds of one run that are finished; a run begins when there is no last one."""

    done: int
    total: int
    last: FinishedRound | None = None


@dataclass(frozen=True)
class ClientReplies:
    """Clients that have answered one phase of a round, and the bytes of that phase so far.

    phase: the kind of the request, such as train or evaluate.
    """

    phase: str
    done: int
    total: int
    down: float = 0.0
    up: float = 0.0


@dataclass(frozen=True)
class Work:
    """Any work but training and waiting. unit: of `done` and `total`, where it is not plain."""

    activity: Activity
    subject: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for all steps of this work."""
        return self.activity, self.subject


@dataclass(frozen=True)
class Training:
    """Training of some clients in optimizer steps; without a client, it happens on the server.

    loss: the mean over the items so far; None before the first step.
    """

    clients: tuple[str, ...]
    done: int = 0
    total: int = 0
    loss: float | None = None
    tokens_per_second: float = 0.0

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for all steps of this training."""
        return (self.clients,)


@dataclass(frozen=True)
class SiloActivity:
    """A silo's state, and for how many seconds it has been in it.

    seconds: while it receives the model, those since it was last heard of.
    phase: the kind of request that it works on. done, total: bytes of the model that it receives.
    """

    name: str
    state: SiloState
    seconds: float = 0.0
    phase: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class WaitingForSilos:
    """A server waits for some of its silos.

    of: the number of all silos. needed: how many a paused round needs; 0 if none is paused.
    """

    silos: tuple[SiloActivity, ...]
    of: int
    needed: int = 0
    done: int = 0
    total: int = 0

    @property
    def identity(self) -> tuple[object, ...]:
        """The same while the server waits for the same silos."""
        return self.of, self.needed, *(silo.name for silo in self.silos)


Job = Work | Training | WaitingForSilos  # what is done within a round, or outside of rounds
Step = Runs | Rounds | ClientReplies | Job


def as_json(step: Step) -> dict[str, Any]:
    """The step's fields as JSON, with its kind."""
    return {"step": type(step).__name__, **asdict(step, dict_factory=_fields)}


def _fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.name.lower() if isinstance(value, Enum) else value for name, value in pairs}
