"""A list of transforms as one: encoded in order, decoded and finished in reverse."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.lazy import Lazy
from hanse.tensors.named import (
    Layout,
    Tensors,
    add_where_present,
    drop,
    layout_bytes,
    subtract,
)
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import floats

log = logging.getLogger(__name__)

TransformStates = Mapping[str, Tensors]  # the server's state of each transform, by its place
MOST_DECODED = 2**32  # bytes of a message that the receiver has no layout of
FEEDBACK = "feedback"  # the place of the memory of error feedback, behind the direction


@dataclass(frozen=True)
class Pipeline:
    """The transforms of one direction ("upload" or "download").

    codecs: they come after the mechanisms at the sender.
    mechanisms: of privacy, the same for all clients.
    error_feedback: whether the sender adds to each update what the codecs lost of the one before
        (Karimireddy et al. 2019, 1901.09847): Σ decoded + memory = Σ updates, up to the
        rounding of each addition. What a tensor owes is dropped when its shape changes.
    owner: the client whose own codecs these are; empty for those of all other clients.
    weights: those of the transforms that have any, by index, once their file is there.
    """

    direction: str
    codecs: tuple[Transform, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()
    error_feedback: bool = False
    owner: str = ""
    weights: Mapping[int, Tensors] = field(default_factory=dict, compare=False)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """All transforms in the order of encoding."""
        return (*self.mechanisms, *self.codecs)

    def place(self, index: int) -> str:
        """The key of the state of the transform at `index`, at the server."""
        owner = f"@{self.owner}" if self.owner and index >= len(self.mechanisms) else ""
        return f"{self.direction}{owner}.{index}"

    def for_client(self) -> "Pipeline":
        """A copy for a client, whose places name no owner."""
        codecs, mechanisms = tuple(map(copy, self.codecs)), tuple(map(copy, self.mechanisms))
        return replace(self, codecs=codecs, mechanisms=mechanisms, owner="")

    def with_files(self, files: Mapping[str, Path]) -> "Pipeline":
        """The same with the weights of its transforms, which are among the run's files by place."""
        places = {index: self.place(index) for index in range(len(self.transforms))}
        weights = {i: load_file(files[place]) for i, place in places.items() if place in files}
        return replace(self, weights=weights) if weights else self

    def _state(self, index: int, states: TransformStates) -> Tensors:
        """The state of a transform, with its weights."""
        return {**states.get(self.place(index), {}), **self.weights.get(index, {})}

    def init(self, expected: Layout) -> dict[str, Tensors]:
        """The state of every transform before the first round.

        Raises UserError for a codec that would find nothing to encode, and for one of the download
        that would decode to more than a client takes.
        """
        states: dict[str, Tensors] = {}
        has_floats = bool(floats(expected))
        for index, transform in enumerate(self.transforms):
            self._refuse_undecodable(transform, expected)
            if has_floats and transform.stage in ("reduce", "quantize") and not floats(expected):
                raise UserError(
                    f"{type(transform).__name__} finds no floating-point numbers, which the codecs "
                    f"before it have encoded; name it first in compression.{self.direction}."
                )
            states[self.place(index)] = transform.init(expected)
            expected = transform.layout(expected, self._state(index, states))
        return states

    def _refuse_undecodable(self, transform: Transform, expected: Layout) -> None:
        """Raise UserError for a codec of the download that decodes to more than MOST_DECODED."""
        claims = type(transform).decoded_bytes is not Transform.decoded_bytes
        size = layout_bytes(expected)
        if claims and self.direction == "download" and size > MOST_DECODED:
            raise UserError(
                f"{type(transform).__name__} would decode an instruction to {size:,} bytes, and a "
                f"client takes at most {MOST_DECODED:,}; leave it out of compression.download."
            )

    def layout(self, expected: Layout, states: TransformStates) -> Layout:
        """The layout of encoded tensors."""
        for index, transform in enumerate(self.transforms):
            expected = transform.layout(expected, self._state(index, states))
        return expected

    def broadcast(self, states: TransformStates) -> dict[str, Tensors]:
        """The part of the states that a request carries, by place at a client."""
        receiver = replace(self, owner="")
        return {
            receiver.place(index): transform.broadcast(states.get(self.place(index), {}))
            for index, transform in enumerate(self.transforms)
        }

    def encode(
        self,
        update: Update,
        memory: dict[str, Memory],
        states: TransformStates,
        context: RoundContext,
    ) -> Update:
        """Encode at the sender; `memory` holds each transform's memory by place, and is updated.

        Raises UserError if error feedback finds an update that its own codecs cannot decode.
        """
        first = len(self.mechanisms)
        codecs = range(first, len(self.transforms))
        update = self._encode(range(first), update, memory, states, context)
        if not self.error_feedback:
            return self._encode(codecs, update, memory, states, context)
        lost = memory.setdefault(f"{self.direction}.{FEEDBACK}", {})
        # A tensor that this round does not send, or that has grown, has nothing to add to.
        due = {n: t for n, t in lost.items() if n in update.tensors}
        due = {n: t for n, t in due.items() if t.shape == update.tensors[n].shape}
        update = replace(update, tensors=add_where_present(update.tensors, due))
        encoded = self._encode(codecs, update, memory, states, context)
        try:
            decoded = self._decode(encoded, states, context, first)
            lost.update(subtract(update.tensors, decoded.tensors))
        except MessageError as error:
            raise UserError(
                f"the codecs of compression.{self.direction} cannot decode what they have encoded: "
                f"{error}; name other codecs."
            ) from None
        return encoded

    def decode(
        self,
        update: Update,
        states: TransformStates,
        context: RoundContext,
        expected: Layout | None = None,
    ) -> Update:
        """Decode at the receiver; raises MessageError if a codec fails in any way.

        A codec may decode a tensor when it is asked for, which then raises the error.

        expected: the layout of the decoded tensors, where the receiver knows it. A message that
        claims to decode to more bytes is refused before it is decoded; without a layout, one that
        claims more than MOST_DECODED.
        """
        limits = self._limits(expected, states)
        with _decoding():
            update = self._decode(update, states, context, 0, limits)
        tensors = update.tensors
        if not isinstance(tensors, Lazy):
            return update

        def decoded(name: str) -> Tensor:
            with _decoding():
                return tensors[name]

        return replace(update, tensors=Lazy(tensors, decoded))

    def _limits(self, expected: Layout | None, states: TransformStates) -> list[int]:
        """The most bytes that each transform may decode to."""
        if expected is None:
            return [MOST_DECODED] * len(self.transforms)
        limits = []
        for index, transform in enumerate(self.transforms):
            limits.append(layout_bytes(expected))
            expected = transform.layout(expected, self._state(index, states))
        return limits

    def finish(
        self, aggregate: Aggregate, states: TransformStates, context: RoundContext
    ) -> tuple[Aggregate, dict[str, Tensors]]:
        """Finish an aggregate at the server; return it with the next state of every transform.

        A client's own pipeline finishes its codecs only, since mechanisms are common to all.
        """
        following: dict[str, Tensors] = {}
        first = len(self.mechanisms) if self.owner else 0
        for index in reversed(range(first, len(self.transforms))):
            state = self._state(index, states)
            aggregate, state = self.transforms[index].finish(aggregate, state, context)
            following[self.place(index)] = drop(state, self.weights.get(index, {}))
        return aggregate, following

    def _encode(
        self,
        indices: range,
        update: Update,
        memory: dict[str, Memory],
        states: TransformStates,
        context: RoundContext,
    ) -> Update:
        """Encode by some of the transforms."""
        for index in indices:
            own: dict[str, Tensor] = memory.setdefault(f"{self.direction}.{index}", {})
            state = self._state(index, states)
            update = self.transforms[index].encode(update, own, state, context)
        return update

    def _decode(
        self,
        update: Update,
        states: TransformStates,
        context: RoundContext,
        first: int,
        limits: Sequence[int] | None = None,
    ) -> Update:
        """Decode by the transforms from `first` on; limits: the most bytes of each one's result."""
        for index in reversed(range(first, len(self.transforms))):
            state, transform = self._state(index, states), self.transforms[index]
            claimed = transform.decoded_bytes(update, state) if limits else 0
            if limits and claimed > limits[index]:
                raise MessageError(
                    f"{type(transform).__name__} would decode it to {claimed:,} bytes, and at most "
                    f"{limits[index]:,} are expected"
                )
            update = transform.decode(update, state, context)
        return update


@contextmanager
def _decoding() -> Iterator[None]:
    """Turns any error of a codec into MessageError: a stranger's bytes must not end the run."""
    try:
        yield
    except MessageError:
        raise
    except Exception as error:
        reason = f"a codec failed to decode it ({type(error).__name__}: {error})"
        log.debug("the error of a codec", exc_info=True)
        raise MessageError(reason) from None


@dataclass(frozen=True)
class Pipelines:
    """The transforms of both directions."""

    upload: Pipeline = field(default_factory=partial(Pipeline, "upload"))
    download: Pipeline = field(default_factory=partial(Pipeline, "download"))

    @property
    def both(self) -> tuple[Pipeline, Pipeline]:
        """Upload and download."""
        return self.upload, self.download

    def for_client(self) -> "Pipelines":
        """Copies for a client, which knows no other client's: they share bytes only."""
        return Pipelines(*(pipeline.for_client() for pipeline in self.both))

    def with_files(self, files: Mapping[str, Path]) -> "Pipelines":
        """The same with the weights of the transforms, which are among the run's files."""
        return Pipelines(*(pipeline.with_files(files) for pipeline in self.both))
