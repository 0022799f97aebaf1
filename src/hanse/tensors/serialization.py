"""Named groups of tensors as bytes: safetensors with a JSON header."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from hanse.errors import cleaned
from hanse.tensors import file_format, json_text
from hanse.tensors.lazy import Lazy
from hanse.tensors.named import Tensors

Numbers = Mapping[str, float]
Groups = Mapping[str, Tensors]
FORMAT = "hanse/1"
HEADER = "hanse"  # the key of the header in safetensors' metadata
NUMBERS = "#"  # the key of the tensor that holds the numbers
MAX_HEADER = 16 * 2**20  # bytes; a longer header is refused before it is parsed


class Content(Protocol):
    """The bytes of a message, in memory or in a file; a slice is read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | bytearray: ...


@dataclass(frozen=True)
class Limits:
    """Limits of a header, which are checked before it is parsed.

    header: its bytes. values: its brackets and commas, of which each tensor has about eight.
    """

    header: int
    values: int


FILES = Limits(MAX_HEADER, MAX_HEADER)  # of this machine's own files
MESSAGES = Limits(4 * 2**20, 100_000)  # of a stranger's message: it takes 64 MB at most to parse


class MessageError(ValueError):
    """Bytes that are no message, or a message of the wrong kind.

    The sentence may quote the message, so it is cleaned.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(cleaned(sentence))


def parts(header: Mapping[str, str], numbers: Numbers, groups: Groups) -> list[bytes | memoryview]:
    """A header, plain numbers and groups of tensors as parts of a message, which are not copies.

    Group names contain no "/".
    """
    flat = {
        f"{group}/{name}": tensor
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    flat[NUMBERS] = torch.tensor([float(value) for value in numbers.values()], dtype=torch.float64)
    fields = {"format": FORMAT, **header, "numbers": list(numbers), "groups": sorted(groups)}
    return file_format.parts(flat, {HEADER: json.dumps(fields)})


def pack(header: Mapping[str, str], numbers: Numbers, groups: Groups) -> bytes:
    """The bytes of a header, plain numbers and groups of tensors."""
    return b"".join(parts(header, numbers, groups))


def unpack(
    data: Content, message: str, limits: Limits = FILES
) -> tuple[dict[str, str], dict[str, float], dict[str, dict[str, Tensor]]]:
    """The header, numbers and groups of a message of the given kind; the inverse of `pack`."""
    header, numbers, groups = read(data, message, limits)
    return header, numbers, {group: dict(tensors) for group, tensors in groups.items()}


def read(
    data: Content, message: str, limits: Limits = FILES
) -> tuple[dict[str, str], dict[str, float], dict[str, Lazy]]:
    """The same, but each tensor is read when it is asked for; raises MessageError.

    Texts and names of numbers are cleaned, since logs, the terminal and reports show them.
    """
    whole, header = _headers(data, limits)
    if header.get("format") != FORMAT or header.get("message") != message:
        raise MessageError(f"these bytes are not a {message} in the format {FORMAT}")
    first = 8 + int.from_bytes(data[:8], "little")
    try:
        places = file_format.places(whole, len(data) - first)
    except ValueError as error:
        raise MessageError(f"this {message} cannot be read: {error}") from None

    def tensor(key: str) -> Tensor:
        place = places[key]
        return file_format.tensor(place, _part(data, first + place.start, first + place.stop))

    names, known = header.pop("numbers", None), header.pop("groups", None)
    if (
        NUMBERS not in places
        or places[NUMBERS].dtype != torch.float64
        or not _are_texts(names)
        or places[NUMBERS].shape != (len(names),)
        or "kind" not in header
        or not _are_texts(known)
        or not _are_texts([*header.values()])
    ):
        raise MessageError(f"this {message} has no valid numbers or kind")
    numbers = dict(zip(map(cleaned, names), tensor(NUMBERS).tolist(), strict=True))
    if len(numbers) < len(names):
        raise MessageError(f"this {message} has two numbers of one name")
    groups = _groups(known, [key for key in places if key != NUMBERS], tensor)
    return {key: cleaned(value) for key, value in header.items()}, numbers, groups


def _groups(
    known: Sequence[str], keys: Iterable[str], tensor: Callable[[str], Tensor]
) -> dict[str, Lazy]:
    """The tensors by group; raises MessageError for a tensor in none of the known groups."""
    names: dict[str, list[str]] = {group: [] for group in known}
    for key in keys:
        group, slash, name = key.partition("/")
        if not slash or group not in names:
            raise MessageError(f"the tensor {key!r:.80} belongs to no group")
        names[group].append(name)

    def of(group: str) -> Lazy:
        return Lazy(names[group], lambda name: tensor(f"{group}/{name}"))

    return {group: of(group) for group in names}


def whole_number(numbers: Numbers, name: str) -> int:
    """The number of that name; raises MessageError unless it is there and whole."""
    value = numbers.get(name, math.nan)
    if not 0 <= value < 2**53 or value != int(value):
        raise MessageError(f"{name} is {value}, expected a whole number")
    return int(value)


def _headers(data: Content, limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
    """A message's header as safetensors has it, and our own in its metadata."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= len(data) - 8:
        raise MessageError("these bytes are not a safetensors file")
    if size > limits.header:
        raise MessageError(f"its header has {size:,} bytes, where at most {limits.header:,} may be")
    try:
        whole = json_text.parse_object(bytes(data[8 : 8 + size]), most=limits.values)
        fields = json_text.parse_object(whole[file_format.METADATA][HEADER])
    except json_text.JsonError as error:
        raise MessageError(f"these bytes have no readable header: {error}") from None
    except (KeyError, TypeError):
        raise MessageError("these bytes have no readable header") from None
    return whole, fields


def _part(data: Content, start: int, stop: int) -> bytearray:
    """A part of a message in memory of its own."""
    part = memoryview(data)[start:stop] if isinstance(data, bytes) else data[start:stop]
    return part if isinstance(part, bytearray) else bytearray(part)


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def own_storage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of those that share memory, as safetensors requires."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        whole_storage = tensor.untyped_storage().nbytes() == tensor.nbytes
        result[name] = tensor if whole_storage and pointer not in seen else tensor.clone()
        seen.add(pointer)
    return result
