"""Requests, replies and their bytes: all that crosses a network.

A message is one safetensors file. Its tensors carry the names ``group/name``; its plain numbers
are one float64 tensor, so that the size of a message depends on names and shapes alone and can be
predicted to the byte; its header holds short strings. Nothing in a message names a class, and
reading one executes nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from hanse.observability.requests import request_id
from hanse.tensors.named import Layout, Tensors, strip_prefix
from hanse.tensors.serialization import Groups, MessageError, Numbers, pack, unpack, whole_number

AGREE, AGREED = "agree", "agreed"  # kinds: what a client was sent, by its word and all others'
LARGEST_NUMBER = 1e100  # far from where sums and products of numbers overflow


@dataclass(frozen=True)
class ClientProfile:
    """What the server knows of one client: its name, its training examples, and plain numbers."""

    name: str
    examples: int
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Instruction:
    """What an algorithm sends one client: tensors, and numbers that configure this client."""

    tensors: Tensors = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """What comes back: tensors, numbers such as steps and loss, and the weight in the mean.

    keeps_memory: whether the client keeps anything from this round for its next one.
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
    """

    kind: str
    round: int
    last_counted_round: int = 0
    instruction: Instruction = field(default_factory=Instruction)
    transform_states: Groups = field(default_factory=dict)
    aggregator_note: Instruction = field(default_factory=Instruction)
    constants: str = ""
    given: Tensors = field(default_factory=dict)

    def id(self, run: str, client: str) -> str:
        """The name of this request to a client in all logs; to have agreed completes a training."""
        kind = "train" if self.kind == AGREED else self.kind
        return request_id(run, self.round, client, kind)

    def pack(self) -> bytes:
        """This request as bytes."""
        header = {"message": "request", "kind": self.kind}
        header |= {"constants": self.constants} if self.constants else {}
        numbers: dict[str, float] = {"round": self.round, "counted": self.last_counted_round}
        numbers |= {f"order/{name}": value for name, value in self.instruction.numbers.items()}
        numbers |= {f"note/{name}": value for name, value in self.aggregator_note.numbers.items()}
        groups = {
            "order": self.instruction.tensors,
            "note": self.aggregator_note.tensors,
            **self.transform_states,
        }
        groups |= {"constants": self.given} if self.given else {}
        return pack(header, numbers, groups)

    @staticmethod
    def parse(data: bytes) -> "Request":
        """The request in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "request")
        instruction = Instruction(groups.pop("order", {}), strip_prefix(numbers, "order/"))
        note = Instruction(groups.pop("note", {}), strip_prefix(numbers, "note/"))
        constants = header.get("constants", ""), groups.pop("constants", {})
        if not re.fullmatch("([0-9a-f]{64})?", constants[0]):  # it becomes the name of a file
            raise MessageError("the hash of the adapter's constants is none")
        round, counted = whole_number(numbers, "round"), whole_number(numbers, "counted")
        return Request(header["kind"], round, counted, instruction, groups, note, *constants)


@dataclass(frozen=True)
class Reply:
    """A client's message to the server: an update, or one sentence that says why there is none.

    lacks: the hash of the constants that the client must be sent before it can do what was asked.
    """

    client: str
    kind: str
    round: int
    update: Update = field(default_factory=Update)
    error: str = ""
    lacks: str = ""

    def pack(self) -> bytes:
        """This reply as bytes."""
        header = {"message": "reply", "kind": self.kind, "client": self.client}
        header |= {name: said for name in ("error", "lacks") if (said := getattr(self, name))}
        numbers: dict[str, float] = {"round": self.round, "weight": self.update.weight}
        numbers |= {"remembered": self.update.keeps_memory}
        numbers |= {f"update/{name}": value for name, value in self.update.numbers.items()}
        return pack(header, numbers, {"update": self.update.tensors})

    @staticmethod
    def parse(data: bytes) -> "Reply":
        """The reply in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "reply")
        if "weight" not in numbers:
            raise MessageError("the reply has no weight")
        tensors = groups.get("update", {})
        own, remembered = strip_prefix(numbers, "update/"), numbers.get("remembered") != 0
        update = Update(tensors, own, numbers["weight"], remembered)
        client, error, lacks = (header.get(name, "") for name in ("client", "error", "lacks"))
        return Reply(client, header["kind"], whole_number(numbers, "round"), update, error, lacks)


def validate_update(
    update: Update, expected: Layout, numbers: Iterable[str] = (), most: float = 1e12
) -> None:
    """The schema gate: raise MessageError unless `update` has exactly the expected tensors.

    Names, shapes and dtypes must be those of `expected`; every value and number must be finite,
    and the weight between 0 and `most`.

    numbers: those that must be there and at least 0, since the algorithm calculates with them.
    """
    if lacking := sorted({*numbers} - update.numbers.keys()):
        raise MessageError(f"the number {lacking[0]} is missing, which the algorithm needs")
    if update.tensors.keys() != expected.keys():
        strange = sorted(update.tensors.keys() ^ expected.keys())[:3]
        raise MessageError(f"tensors missing or not asked for: {', '.join(strange)}")
    for name, tensor in update.tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise MessageError(
                f"{name} came as {tuple(tensor.shape)} {tensor.dtype}, "
                f"expected {tuple(want.shape)} {want.dtype}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
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
