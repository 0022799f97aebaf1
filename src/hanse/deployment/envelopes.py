"""What travels around a request: the run, its settings as text, and who answers.

Every letter carries the settings, a few kilobytes, so that a silo whose process was started anew
needs nothing else. They are plain values, which the silo reads with its own model of an
experiment; nothing in a letter is run. Who is at a node is asked first, by a letter without
content, since a signed one says for whom it is.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import hanse
from hanse.deployment.sockets import pack, unpack
from hanse.errors import UserError, cleaned
from hanse.federation.messages import ClientProfile, Request

# Signs (body, run, round, name of the silo); what to send, and the number in the reply's stamp.
Sign = Callable[[bytes, str, int, str], tuple[bytes, int]]
# Opens (what came, run); whose it is, the number of the letter that it answers, and the body.
Open = Callable[[bytes, str], tuple[str, int, bytes]]
HELLO = b""  # asks who is there
TEXTS = ("run", "settings", "rows", "model", "precision", "version")
SAID = ("name", "session", "error")
NUMBERS = ("rank", "scaling")
MOST_EXAMPLES, MOST_RANK, MOST_SCALING = 10**12, 65_536, 10**6
LONGEST = 64  # characters of a run's name


class RefusedError(UserError):
    """A letter or an answer that is not what it should be; nothing of it is used."""


@dataclass(frozen=True)
class Envelope:
    """What a silo is sent.

    run: a name for the run that no other has.
    settings: the resolved experiment, as YAML.
    rows: a hash of those that are divided among the silos; empty if each has its own.
    model: a hash of the base model; empty if clients have different ones, or the server has none.
    precision: how the base model computes at the server, as JSON; empty if each chooses.
    request: empty for one that asks for the silo's profile alone.
    """

    run: str
    settings: str
    rows: str = ""
    model: str = ""
    precision: str = ""
    version: str = hanse.__version__
    request: bytes = b""

    def pack(self) -> bytes:
        """This letter as bytes."""
        return pack({name: getattr(self, name) for name in TEXTS}, self.request)

    @staticmethod
    def parse(data: bytes) -> "Envelope":
        """The letter in `data`; raises RefusedError for anything else."""
        head, request = _opened(data)
        _check(head, dict.fromkeys(TEXTS, str))
        run = head["run"]
        if not (run.isascii() and run.isalnum() and len(run) <= LONGEST):  # it names a folder
            raise RefusedError(
                f"a run is called by at most {LONGEST} letters and digits, but {run!r:.80} came."
            )
        return Envelope(**{name: head[name] for name in TEXTS}, request=request)


@dataclass(frozen=True)
class SiloReply:
    """What a silo says.

    session: of its process, since another one has forgotten all.
    error: why it does not take part; else, to a letter, profile and the reply to the request.
    """

    name: str
    session: str
    profile: ClientProfile | None = None
    error: str = ""
    body: bytes = b""

    def pack(self) -> bytes:
        """This answer as bytes."""
        head: dict[str, Any] = {"name": self.name, "session": self.session, "error": self.error}
        if self.profile is not None:
            head["examples"] = self.profile.examples
            head |= {name: float(self.profile.numbers[name]) for name in NUMBERS}
        return pack(head, self.body)

    @staticmethod
    def parse(data: bytes) -> "SiloReply":
        """The answer in `data`; raises RefusedError for anything else."""
        head, body = _opened(data)
        _check(head, dict.fromkeys(SAID, str))
        head |= {name: cleaned(head[name]) for name in SAID}
        profile = None
        if "examples" in head:
            _check(head, {"examples": int, **dict.fromkeys(NUMBERS, float)})
            numbers = {name: head[name] for name in NUMBERS}
            _vet(head["examples"], numbers)
            profile = ClientProfile(head["name"], head["examples"], numbers)
        return SiloReply(head["name"], head["session"], profile, head["error"], body)


@dataclass
class Envelopes:
    """Writes a run's letters, and reads the answers.

    envelope: without a request; its other fields are the same for all silos.
    sign, open: none where nothing is signed, which is for one machine alone.
    adapters: the numbers of the adapter that the experiment gives a silo, by name; a silo that
        declares others is refused.
    """

    envelope: Envelope
    sign: Sign | None = None
    open: Open | None = None
    adapters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    round: int = 0  # of the last request
    _numbers: Any = field(default_factory=itertools.count)

    def write(self, name: str, request: bytes) -> tuple[bytes, int]:
        """A letter to a silo with this request, and the letter's number."""
        letter = replace(self.envelope, request=request).pack()
        self.round = Request.parse(request).round if request else self.round
        if self.sign is None:
            return letter, next(self._numbers)
        return self.sign(letter, self.envelope.run, self.round, name)

    def read(self, data: bytes, name: str, number: int) -> SiloReply:
        """A silo's answer to the letter of this number; raises RefusedError for any other."""
        if self.open is not None:
            try:
                sender, replied, data = self.open(data, self.envelope.run)
            except RefusedError as error:
                raise RefusedError(_unsigned(data) or str(error)) from None
            if (sender, replied) != (name, number):
                raise RefusedError(f"it is {sender}'s, or answers another letter.")
        answer = SiloReply.parse(data)
        if answer.name != name:
            raise RefusedError(f"it is in the name of {answer.name!r:.80}, but {name} was asked.")
        due = self.adapters.get(name)
        if answer.profile and due is not None and answer.profile.numbers != due:
            raise RefusedError(
                f"it declares an adapter of {_listed(answer.profile.numbers)}; the experiment "
                f"gives it {_listed(due)}."
            )
        return answer


def _listed(numbers: Mapping[str, float]) -> str:
    return " and ".join(f"{name} {value:g}" for name, value in numbers.items())


def _vet(examples: int, numbers: Mapping[str, float]) -> None:
    """Raise RefusedError for a profile that no algorithm could go on with."""
    rank, scaling = numbers["rank"], numbers["scaling"]
    if not (1 <= examples <= MOST_EXAMPLES):
        raise RefusedError(f"it declares {examples:,} examples, not 1 to {MOST_EXAMPLES:,}.")
    if rank > MOST_RANK or rank != int(rank) or not 0 < scaling <= MOST_SCALING:
        raise RefusedError(
            f"it declares rank {rank:g} and scaling {scaling:g}; a rank is a whole number up to "
            f"{MOST_RANK:,}, and a scaling above 0 and at most {MOST_SCALING:,}."
        )


def _unsigned(data: bytes) -> str:
    """The reason that somebody gives, unsigned, for not taking a letter; empty if nobody does."""
    try:
        said = SiloReply.parse(data).error
    except RefusedError:
        return ""
    return f"somebody says, unsigned, that our letter is refused: {said:.300}" if said else ""


def _opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        return unpack(data)
    except ValueError as error:
        raise RefusedError(f"{error}.") from None


def _check(head: dict[str, Any], kinds: dict[str, type]) -> None:
    for name, kind in kinds.items():
        value: Any = head.get(name)
        right = type(value) is kind
        if not right or (kind is not str and not 0 <= value < 2**53):
            raise RefusedError(f"{name} came as {value!r:.80}, which it cannot be.")
