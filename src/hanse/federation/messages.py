"""Requests, replies and their bytes: all that crosses a network.

A message is one safetensors file. Its tensors carry the names ``group/name``; its plain numbers
are one float64 tensor, so that the size of a message depends on names and shapes alone and can be
predicted to the byte; its header holds short strings. Nothing in a message names a class, and
reading one executes nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanse.observability.requests import request_id
from hanse.tensors.named import Bounded, Layout, Tensors, fits, is_finite, largest, strip_prefix
from hanse.tensors.serialization import (
    MESSAGES,
    Content,
    Groups,
    MessageError,
    Numbers,
    parts,
    read,
    unpack,
    whole_number,
)

AGREE, AGREED = "agree", "agreed"  # kinds of requests in which silos compare what they got
PREPARE = "prepare"  # the kind of a request that offers files, or brings a part of one
MOST_FILES = 64  # of a run
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LARGEST_NUMBER = 1e100  # sums and products of such numbers do not overflow


@dataclass(frozen=True)
class ClientProfile:
    """One client as the server knows it: its name, number of training examples, plain numbers.

    layout: of what it trains (on the meta device), if the algorithm lets clients differ in that.
    last_counted_round: as in `Request`; known in the instruction of a round.
    rounding: the number of examples is rounded to the nearest multiple of it, and at least to one.
    """

    name: str
    examples: int
    numbers: Numbers = field(default_factory=dict)
    layout: Tensors | None = field(default=None, compare=False)
    last_counted_round: int = field(default=0, compare=False)
    place: int = field(default=0, compare=False)  # among the clients that a round asks, from 0 on
    rounding: int = 1


@dataclass(frozen=True)
class Instruction:
    """An algorithm's message to one client: tensors, and numbers that configure the client."""

    tensors: Tensors = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """A client's result: tensors, numbers such as steps and loss, and its weight in the mean.

    keeps_memory: whether the client keeps a memory of this round.
    """

    tensors: Tensors = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    weight: float = 1.0
    keeps_memory: bool = False


@dataclass(frozen=True)
class Request:
    """The server's message to one client.

    kind: train, evaluate, or a phase of the aggregator.
    last_counted_round: the last round that counted this client's update. The client continues from
        its memory after that round. 0: no update was counted, or its memory was empty.
    transform_states: the state that each transform broadcasts, such as a basis, by its place
        ("upload.0").
    aggregator_note: the aggregator's own message to this client, beside the instruction.
    constants: the hash of the adapter's constants; empty if it has none.
    given: the constants themselves, for a client that does not have them yet.
    files: the SHA-256 of each file that the client was sent before, by name.
    attempt: how often a round with phases was asked for before, since the server was started. A
        reply has that of its request: one to an earlier attempt must not count in a later one.
    """

    kind: str
    round: int
    last_counted_round: int = 0
    instruction: Instruction = field(default_factory=Instruction)
    transform_states: Groups = field(default_factory=dict)
    aggregator_note: Instruction = field(default_factory=Instruction)
    constants: str = ""
    given: Tensors = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0

    def id(self, run: str, client: str) -> str:
        """The name of this request to a client in all logs; to have agreed completes a training."""
        kind = "train" if self.kind == AGREED else self.kind
        return request_id(run, self.round, client, kind)

    def is_like(self, other: "Request") -> bool:
        """True if both are the same request, with the same tensors in memory."""
        return self._content == other._content

    @property
    def _content(self) -> tuple[object, ...]:
        """All that its bytes depend on; tensors are represented by their places in memory."""
        groups = {
            "instruction": self.instruction.tensors,
            "note": self.aggregator_note.tensors,
            "given": self.given,
            **self.transform_states,
        }
        places = [
            {name: id(tensor) for name, tensor in group.items()}
            if isinstance(group, dict)
            else id(group)  # it may make its tensors when they are asked for
            for group in groups.values()
        ]
        numbers = dict(self.instruction.numbers), dict(self.aggregator_note.numbers)
        kind = self.kind, self.round, self.last_counted_round, self.constants, self.attempt
        return (*kind, *numbers, dict(self.files), [*groups], places)

    def pack(self) -> bytes:
        """This request as bytes."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes | memoryview]:
        """The same in parts, which share the memory of the tensors."""
        header = {"message": "request", "kind": self.kind}
        header |= {"constants": self.constants} if self.constants else {}
        numbers: dict[str, float] = {"round": self.round}
        numbers["last_counted_round"] = self.last_counted_round
        numbers |= {"attempt": self.attempt} if self.attempt else {}
        numbers |= {
            f"instruction/{name}": value for name, value in self.instruction.numbers.items()
        }
        numbers |= {
            f"aggregator_note/{name}": value for name, value in self.aggregator_note.numbers.items()
        }
        groups = {
            "instruction": self.instruction.tensors,
            "aggregator_note": self.aggregator_note.tensors,
            **self.transform_states,
        }
        groups |= {"constants": self.given} if self.given else {}
        groups |= {"files": _packed_hashes(self.files)} if self.files else {}
        return parts(header, numbers, groups)

    @staticmethod
    def heading(data: Content) -> "Request":
        """The kind and the round of the request in `data`; its tensors are not read."""
        header, numbers, _ = read(data, "request", MESSAGES)
        return Request(header["kind"], whole_number(numbers, "round"))

    @staticmethod
    def parse(data: Content) -> "Request":
        """The request in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "request", MESSAGES)
        instruction = Instruction(
            groups.pop("instruction", {}), strip_prefix(numbers, "instruction/")
        )
        note = Instruction(
            groups.pop("aggregator_note", {}), strip_prefix(numbers, "aggregator_note/")
        )
        constants = header.get("constants", ""), groups.pop("constants", {})
        if not re.fullmatch("([0-9a-f]{64})?", constants[0]):  # it becomes the name of a file
            raise MessageError("the hash of the adapter's constants is not a hash")
        files = _hashes(groups.pop("files", {}))
        round = whole_number(numbers, "round")
        counted, attempt = whole_number(numbers, "last_counted_round"), _read_attempt(numbers)
        content = instruction, groups, note, *constants, files
        return Request(header["kind"], round, counted, *content, attempt)


@dataclass(frozen=True)
class Reply:
    """A client's message to the server: an update, or one sentence on why there is none.

    lacks: the hash of the constants that the client needs before it can answer.
    attempt: of the request.
    """

    client: str
    kind: str
    round: int
    update: Update = field(default_factory=Update)
    error: str = ""
    lacks: str = ""
    attempt: int = 0

    def pack(self) -> bytes:
        """This reply as bytes."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes | memoryview]:
        """The same in parts, which share the memory of the tensors."""
        header = {"message": "reply", "kind": self.kind, "client": self.client}
        header |= {name: text for name in ("error", "lacks") if (text := getattr(self, name))}
        numbers: dict[str, float] = {"round": self.round, "weight": self.update.weight}
        numbers |= {"keeps_memory": self.update.keeps_memory}
        numbers |= {"attempt": self.attempt} if self.attempt else {}
        numbers |= {f"update/{name}": value for name, value in self.update.numbers.items()}
        return parts(header, numbers, {"update": self.update.tensors})

    @staticmethod
    def heading(data: Content) -> "Reply":
        """Kind, round, attempt and error of the reply in `data`; its tensors are not read."""
        header, numbers, _ = read(data, "reply", MESSAGES)
        round, attempt = whole_number(numbers, "round"), _read_attempt(numbers)
        error = header.get("error", "")
        return Reply("", header["kind"], round, error=error, attempt=attempt)

    @staticmethod
    def parse(data: Content) -> "Reply":
        """The reply in `data`; raises MessageError for anything else.

        Each of its tensors is read from `data` when it is asked for.
        """
        header, numbers, groups = read(data, "reply", MESSAGES)
        if "weight" not in numbers:
            raise MessageError("the reply has no weight")
        tensors: Tensors = groups.get("update", {})
        reported, keeps_memory = strip_prefix(numbers, "update/"), numbers.get("keeps_memory") != 0
        update = Update(tensors, reported, numbers["weight"], keeps_memory)
        client, error, lacks = (header.get(name, "") for name in ("client", "error", "lacks"))
        round, attempt = whole_number(numbers, "round"), _read_attempt(numbers)
        return Reply(client, header["kind"], round, update, error, lacks, attempt)


def _read_attempt(numbers: Numbers) -> int:
    """The number of a message's attempt; the first one has none."""
    return whole_number(numbers, "attempt") if "attempt" in numbers else 0


def _packed_hashes(files: Mapping[str, str]) -> dict[str, Tensor]:
    """The hashes of files as tensors of 32 bytes."""
    return {
        name: torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        for name, digest in files.items()
    }


def _hashes(tensors: Tensors) -> dict[str, str]:
    """The hashes of files in a message; raises MessageError for bad names and for other tensors."""
    if len(tensors) > MOST_FILES:
        raise MessageError(f"it names {len(tensors):,} files, and a run has at most {MOST_FILES}")
    for name, tensor in tensors.items():
        if not FILE_NAME.fullmatch(name):
            raise MessageError(f"a file is named {name!r:.80}, which is no plain name")
        if tensor.dtype != torch.uint8 or tensor.shape != (32,):
            raise MessageError(f"the hash of the file {name} is no SHA-256")
    return {name: bytes(tensor.tolist()).hex() for name, tensor in tensors.items()}


def validate_update(
    update: Update, expected: Layout, numbers: Iterable[str] = (), most: float = 1e12
) -> None:
    """Raise MessageError unless `update` has exactly the expected tensors (the schema gate).

    Names, shapes and dtypes must be those of `expected`, or within its bounds; every value and
    number must be finite, and the weight between 0 and `most`.

    numbers: the algorithm's numbers, which must exist and be at least 0.
    """
    if missing := sorted({*numbers} - update.numbers.keys()):
        raise MessageError(f"the number {missing[0]} is missing, which the algorithm needs")
    if update.tensors.keys() != expected.keys():
        different = [f"{name:.80}" for name in sorted(update.tensors.keys() ^ expected.keys())]
        raise MessageError(f"tensors missing or not asked for: {', '.join(different[:3])}")
    for name, tensor in update.tensors.items():
        form = largest(expected[name])
        if not fits(tensor, expected[name]):
            bound = "at most " if isinstance(expected[name], Bounded) else ""
            raise MessageError(
                f"{name} came as {tuple(tensor.shape)} {tensor.dtype}, "
                f"expected {bound}{tuple(form.shape)} {form.dtype}"
            )
        if not is_finite(tensor):
            raise MessageError(f"{name} has values that are not finite")
    if not 0 <= update.weight <= most:
        raise MessageError(f"the weight {update.weight:g} is not between 0 and {most:g}")
    for name, value in update.numbers.items():
        if not abs(value) <= LARGEST_NUMBER:
            raise MessageError(f"the number {name} is {value:g}")
    for name in numbers:
        if update.numbers[name] < 0:
            raise MessageError(
                f"the number {name} is {update.numbers[name]:g}, and at least 0 is due"
            )
