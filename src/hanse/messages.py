"""Requests, replies and their bytes: all that crosses a network.

A message is one safetensors file. Its tensors carry the names ``group/name``; its plain numbers
are one float64 tensor, so that the size of a message depends on names and shapes alone and can be
predicted to the byte; its header holds short strings. Nothing in a message names a class, and
reading one executes nothing.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hanse.tensors import Layout, Tensors, below
from hanse.texts import cleaned

Numbers = Mapping[str, float]
Groups = Mapping[str, Tensors]

FORMAT = "hanse/1"
HEADER = "hanse"  # the key of the header in safetensors' metadata
NUMBERS = "#"  # the key of the tensor that holds the numbers
AGREE, AGREED = "agree", "agreed"  # kinds: what a client was sent, by its word and all others'
LARGEST_NUMBER = 1e100  # far from where sums and products of numbers overflow
MAX_HEADER = 16 * 2**20  # bytes; a longer header is refused before it is parsed


class MessageError(ValueError):
    """Bytes that are not a message, or a message that is not what was asked for.

    The sentence may quote what came, so it is cleaned.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(cleaned(sentence))


@dataclass(frozen=True)
class ClientProfile:
    """What the server knows of one client: its name, its training examples, and plain numbers."""

    name: str
    examples: int
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What an algorithm sends one client: tensors, and numbers that configure this client."""

    tensors: Tensors = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """What comes back: tensors, numbers such as steps and loss, and the weight in the mean.

    remembered: whether the client keeps anything from this round for its next one.
    """

    tensors: Tensors = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    weight: float = 1.0
    remembered: bool = False


@dataclass(frozen=True)
class Request:
    """The server's message to one client.

    kind: train, evaluate, or a phase of the aggregator.
    counted: the last round in which this client's update was counted; the client's memory is what
        it was after that round. 0: none yet, or the client remembers nothing of it.
    codecs: server state of the transforms, such as a basis, by place in the list ("upload.0").
    note: what the aggregator tells this client along with the order.
    constants: the hash of what the adapter has beside its trained tensors; empty if nothing.
    given: these themselves, for a client that does not have them yet.
    """

    kind: str
    round: int
    counted: int = 0
    order: Order = field(default_factory=Order)
    codecs: Groups = field(default_factory=dict)
    note: Order = field(default_factory=Order)
    constants: str = ""
    given: Tensors = field(default_factory=dict)

    def pack(self) -> bytes:
        """This request as bytes."""
        header = {"message": "request", "kind": self.kind}
        header |= {"constants": self.constants} if self.constants else {}
        numbers: dict[str, float] = {"round": self.round, "counted": self.counted}
        numbers |= {f"order/{name}": value for name, value in self.order.numbers.items()}
        numbers |= {f"note/{name}": value for name, value in self.note.numbers.items()}
        groups = {"order": self.order.tensors, "note": self.note.tensors, **self.codecs}
        groups |= {"constants": self.given} if self.given else {}
        return pack(header, numbers, groups)

    @staticmethod
    def parse(data: bytes) -> "Request":
        """The request in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "request")
        order = Order(groups.pop("order", {}), below(numbers, "order/"))
        note = Order(groups.pop("note", {}), below(numbers, "note/"))
        constants = header.get("constants", ""), groups.pop("constants", {})
        if not re.fullmatch("([0-9a-f]{64})?", constants[0]):  # it becomes the name of a file
            raise MessageError("the hash of the adapter's constants is none")
        round, counted = whole(numbers, "round"), whole(numbers, "counted")
        return Request(header["kind"], round, counted, order, groups, note, *constants)


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
        numbers |= {"remembered": self.update.remembered}
        numbers |= {f"update/{name}": value for name, value in self.update.numbers.items()}
        return pack(header, numbers, {"update": self.update.tensors})

    @staticmethod
    def parse(data: bytes) -> "Reply":
        """The reply in `data`; raises MessageError for anything else."""
        header, numbers, groups = unpack(data, "reply")
        if "weight" not in numbers:
            raise MessageError("the reply has no weight")
        tensors = groups.get("update", {})
        own, remembered = below(numbers, "update/"), numbers.get("remembered") != 0
        update = Update(tensors, own, numbers["weight"], remembered)
        client, error, lacks = (header.get(name, "") for name in ("client", "error", "lacks"))
        return Reply(client, header["kind"], whole(numbers, "round"), update, error, lacks)


def pack(header: Mapping[str, str], numbers: Numbers, groups: Groups) -> bytes:
    """Bytes of a header, plain numbers and groups of tensors; no "/" in the name of a group."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    flat[NUMBERS] = torch.tensor([float(value) for value in numbers.values()], dtype=torch.float64)
    fields = {"format": FORMAT, **header, "numbers": list(numbers), "groups": sorted(groups)}
    # One entry: safetensors writes several in another order each time.
    return safetensors.torch.save(own_storage(flat), metadata={HEADER: json.dumps(fields)})


def unpack(
    data: bytes, message: str
) -> tuple[dict[str, str], dict[str, float], dict[str, dict[str, Tensor]]]:
    """Header, numbers and groups of a message of the given sort; the inverse of `pack`.

    Texts and names of numbers are cleaned: they go on to logs, the terminal and reports.
    """
    header = _header(data)
    if header.get("format") != FORMAT or header.get("message") != message:
        raise MessageError(f"these bytes are not a {message} in the format {FORMAT}")
    try:
        flat = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise MessageError(f"this {message} cannot be read: {error}") from None
    names, values = header.pop("numbers", None), flat.pop(NUMBERS, None)
    known = header.pop("groups", None)
    if (
        values is None
        or values.dtype != torch.float64
        or not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or values.shape != (len(names),)
        or "kind" not in header
        or not isinstance(known, list)
        or not all(isinstance(group, str) for group in known)
        or not all(isinstance(value, str) for value in header.values())
    ):
        raise MessageError(f"this {message} has no valid numbers or kind")
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in known}
    for key, tensor in sorted(flat.items()):  # safetensors has another order each time
        group, slash, name = key.partition("/")
        if not slash or group not in groups:
            raise MessageError(f"the tensor {key!r} belongs to no group")
        groups[group][name] = tensor
    told = dict(zip(map(cleaned, names), values.tolist(), strict=True))
    if len(told) < len(names):
        raise MessageError(f"this {message} has two numbers of one name")
    return {key: cleaned(value) for key, value in header.items()}, told, groups


def admit(
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


def whole(numbers: Numbers, name: str) -> int:
    """The number `name`, which must be there and be a whole one."""
    value = numbers.get(name, math.nan)
    if not 0 <= value < 2**53 or value != int(value):
        raise MessageError(f"{name} is {value}, expected a whole number")
    return int(value)


def _header(data: bytes) -> dict[str, Any]:
    """The fields at the head of a message."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER, len(data) - 8):
        raise MessageError("these bytes are not a safetensors file")
    try:
        found = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][HEADER])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MessageError("these bytes have no readable header") from None
    if not isinstance(found, dict):
        raise MessageError("these bytes have no readable header")
    return found


def own_storage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that share memory with another one copied (safetensors asks it)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        whole_storage = tensor.untyped_storage().nbytes() == tensor.nbytes
        result[name] = tensor if whole_storage and pointer not in seen else tensor.clone()
        seen.add(pointer)
    return result
