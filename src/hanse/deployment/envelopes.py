"""Envelopes around requests, with the run and its settings, and the replies of silos.

Every envelope carries the settings, a few kilobytes, so that a silo whose process was restarted
needs nothing else. They are plain values, which the silo reads with its own model of an
experiment; nothing in an envelope is executed. A signed envelope names its receiver, so a node is
first sent a hello, which has no content and asks which silo is there.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import hanse
from hanse.deployment.sockets import pack, unpack
from hanse.errors import UserError, cleaned
from hanse.federation.messages import ClientProfile, Request
from hanse.tensors.layouts import parse as parse_layout
from hanse.tensors.named import Tensors, shapes
from hanse.tensors.serialization import Content

# Signs (body, run, round, silo's name); returns the message and the number its reply must name.
Sign = Callable[[bytes, str, int, str], tuple[bytes, int]]
# Opens (message, run); returns the sender, the number of the envelope it replies to, and the body.
Open = Callable[[bytes, str], tuple[str, int, bytes]]
HELLO = b""  # asks which silo is at a node
ENVELOPE_TEXTS = ("run", "settings", "rows", "public", "model", "precision", "code", "version")
REPLY_TEXTS = ("name", "session", "error")
COUNTS, NUMBERS = ("examples", "rounding"), ("rank", "scaling")
MAX_EXAMPLES, MAX_RANK, MAX_SCALING = 10**12, 65_536, 10**6
LONGEST_NAME = 64  # characters of a run's name


class BadEnvelopeError(UserError):
    """An envelope, or a silo's reply to one, is not valid; nothing of it is used."""


@dataclass(frozen=True)
class Envelope:
    """A message to a silo.

    run: the unique name of the run.
    settings: the resolved experiment, as YAML.
    rows: the hash of the rows that are divided among the silos; empty if each has its own.
    public: the hash of the public rows; empty if silos need none.
    model: the hash of the base model; empty if clients have different ones, or the server has none.
    precision: the precision of the base model at the server, as JSON; empty if each silo chooses.
    code: the hashes of parts from outside the package, by file and class, as JSON.
    request: empty if the envelope asks only for the silo's profile.
    """

    run: str
    settings: str
    rows: str = ""
    model: str = ""
    precision: str = ""
    code: str = ""
    version: str = hanse.__version__
    public: str = ""
    request: bytes = b""

    def pack(self) -> bytes:
        """The envelope as bytes."""
        return pack({name: getattr(self, name) for name in ENVELOPE_TEXTS}, self.request)

    @staticmethod
    def parse(data: bytes) -> "Envelope":
        """The envelope in `data`; raises BadEnvelopeError for anything else."""
        head, request = _unpack(data)
        _check_types(head, dict.fromkeys(ENVELOPE_TEXTS, str))
        run = head["run"]
        if not (run.isascii() and run.isalnum() and len(run) <= LONGEST_NAME):  # names a folder
            raise BadEnvelopeError(
                f"a run's name has at most {LONGEST_NAME} letters and digits, but {run!r:.80} came."
            )
        return Envelope(**{name: head[name] for name in ENVELOPE_TEXTS}, request=request)


@dataclass(frozen=True)
class SiloReply:
    """A silo's reply to an envelope or to a hello.

    session: identifies the silo's process; another process has forgotten all requests.
    error: why the silo does not take part; empty if it does.
    profile, body: in the reply to an envelope, the silo's profile and the reply to the request, if
        there was one.
    """

    name: str
    session: str
    profile: ClientProfile | None = None
    error: str = ""
    body: bytes = b""

    def pack(self) -> bytes:
        """The reply as bytes."""
        head: dict[str, Any] = {"name": self.name, "session": self.session, "error": self.error}
        if self.profile is not None:
            head |= {name: getattr(self.profile, name) for name in COUNTS}
            head |= {name: float(self.profile.numbers[name]) for name in NUMBERS}
            head |= {} if (layout := self.profile.layout) is None else {"layout": shapes(layout)}
        return pack(head, self.body)

    @staticmethod
    def parse(data: bytes) -> "SiloReply":
        """The reply in `data`; raises BadEnvelopeError for anything else."""
        head, body = _unpack(data)
        _check_types(head, dict.fromkeys(REPLY_TEXTS, str))
        head |= {name: cleaned(head[name]) for name in REPLY_TEXTS}
        profile = None
        if "examples" in head:
            _check_types(head, dict.fromkeys(COUNTS, int) | dict.fromkeys(NUMBERS, float))
            counts, numbers = ({n: head[n] for n in names} for names in (COUNTS, NUMBERS))
            _check_profile(counts, numbers)
            layout = _layout(head["layout"]) if "layout" in head else None
            profile = ClientProfile(head["name"], numbers=numbers, layout=layout, **counts)
        return SiloReply(head["name"], head["session"], profile, head["error"], body)


@dataclass
class Envelopes:
    """Writes the envelopes of a run, and reads the replies to them.

    envelope: without a request; its other fields are the same for all silos.
    sign, open: None where nothing is signed, which is allowed on one machine only.
    adapters: rank and scaling of the adapter that the experiment gives each silo, by its name; a
        silo that declares others is refused.
    layouts: the layout that each silo must declare, as the experiment gives it; None for a silo
        whose model the server has not, which may declare any. None for all if no algorithm asks.
    """

    envelope: Envelope
    sign: Sign | None = None
    open: Open | None = None
    adapters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    layouts: Mapping[str, Tensors | None] | None = None
    round: int = 0  # of the last request
    _numbers: Any = field(default_factory=itertools.count)

    def write(self, name: str, request: Content) -> tuple[bytes, int]:
        """An envelope to a silo with this request, and the envelope's number."""
        envelope = replace(self.envelope, request=bytes(request[:])).pack()
        if request:  # one that brings the model has round 0, whatever the run's is
            self.round = Request.heading(request).round or self.round
        if self.sign is None:
            return envelope, next(self._numbers)
        return self.sign(envelope, self.envelope.run, self.round, name)

    def read(self, data: bytes, name: str, number: int) -> SiloReply:
        """The silo's reply to the envelope of this number; raises BadEnvelopeError for others."""
        if self.open is not None:
            try:
                sender, replied, data = self.open(data, self.envelope.run)
            except BadEnvelopeError as error:
                raise BadEnvelopeError(_unsigned_refusal(data) or str(error)) from None
            if (sender, replied) != (name, number):
                raise BadEnvelopeError(f"it is from {sender}, or is the reply to another envelope.")
        reply = SiloReply.parse(data)
        if reply.name != name:
            raise BadEnvelopeError(
                f"it is in the name of {reply.name!r:.80}, but {name} was asked."
            )
        if reply.profile is not None:
            self._check_adapter(reply.profile)
        return reply

    def _check_adapter(self, profile: ClientProfile) -> None:
        """Raise BadEnvelopeError for another adapter than the experiment gives the silo."""
        expected = self.adapters.get(profile.name, profile.numbers)
        # With ranks by matrix α/r is rounded.
        if not all(math.isclose(profile.numbers[key], expected[key]) for key in NUMBERS):
            raise BadEnvelopeError(
                f"it declares an adapter of {_listed(profile.numbers)}; the experiment "
                f"gives it {_listed(expected)}."
            )
        if self.layouts is None:
            return
        if profile.layout is None:
            raise BadEnvelopeError("it declares no layout of what it trains.")
        layout = self.layouts.get(profile.name)
        if layout is not None and shapes(profile.layout) != shapes(layout):
            name = _difference(profile.layout, layout)
            raise BadEnvelopeError(
                f"it declares to train other tensors than the experiment gives it, such as {name}."
            )


def _layout(values: Any) -> Tensors:
    """The layout in a silo's profile."""
    try:
        return parse_layout(values)
    except ValueError as error:
        raise BadEnvelopeError(f"it declares a layout that cannot be: {error}.") from None


def _difference(a: Tensors, b: Tensors) -> str:
    """The first name under which two layouts have different tensors."""
    pairs = {
        name: [shapes({"": side[name]}) if name in side else None for side in (a, b)]
        for name in sorted({*a, *b})
    }
    return next(name for name, (one, other) in pairs.items() if one != other)


def _listed(numbers: Mapping[str, float]) -> str:
    return " and ".join(f"{name} {value:g}" for name, value in numbers.items())


def _check_profile(counts: Mapping[str, int], numbers: Mapping[str, float]) -> None:
    """Raise BadEnvelopeError for a profile whose numbers are out of range."""
    rank, scaling = numbers["rank"], numbers["scaling"]
    examples, step = counts["examples"], counts["rounding"]
    if not (1 <= examples <= MAX_EXAMPLES):
        raise BadEnvelopeError(f"it declares {examples:,} examples, not 1 to {MAX_EXAMPLES:,}.")
    if not step or examples % step:
        raise BadEnvelopeError(f"it declares {examples:,} examples, rounded to {step:,}s.")
    if rank > MAX_RANK or rank != int(rank) or not 0 < scaling <= MAX_SCALING:
        raise BadEnvelopeError(
            f"it declares rank {rank:g} and scaling {scaling:g}; a rank is a whole number up to "
            f"{MAX_RANK:,}, and a scaling above 0 and at most {MAX_SCALING:,}."
        )


def _unsigned_refusal(data: bytes) -> str:
    """A sentence on a refusal that came without a signature; empty if it is something else."""
    try:
        reason = SiloReply.parse(data).error
    except BadEnvelopeError:
        return ""
    return f"an unsigned reply says that our envelope is refused: {reason:.300}" if reason else ""


def _unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        return unpack(data)
    except ValueError as error:
        raise BadEnvelopeError(f"{error}.") from None


def _check_types(head: dict[str, Any], types: dict[str, type]) -> None:
    """Raise BadEnvelopeError unless each value has its type, and numbers are from 0 to 2⁵³."""
    for name, expected in types.items():
        value: Any = head.get(name)
        fits = type(value) is expected
        if not fits or (expected is not str and not 0 <= value < 2**53):
            raise BadEnvelopeError(f"{name} came as {value!r:.80}, which it cannot be.")
