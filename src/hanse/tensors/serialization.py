"""Named groups of tensors as bytes: safetensors with a JSON header."""

import json
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hanse.errors import cleaned
from hanse.tensors import json_text
from hanse.tensors.named import Tensors

Numbers = Mapping[str, float]
Groups = Mapping[str, Tensors]
FORMAT = "hanse/1"
HEADER = "hanse"  # the key of the header in safetensors' metadata
NUMBERS = "#"  # the key of the tensor that holds the numbers
MAX_HEADER = 16 * 2**20  # bytes; a longer header is refused before it is parsed


class MessageError(ValueError):
    """Bytes that are no message, or a message of the wrong kind.

    The sentence may quote the message, so it is cleaned.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(cleaned(sentence))


def pack(header: Mapping[str, str], numbers: Numbers, groups: Groups) -> bytes:
    """The bytes of a header, plain numbers and groups of tensors; group names contain no "/"."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    flat[NUMBERS] = torch.tensor([float(value) for value in numbers.values()], dtype=torch.float64)
    fields = {"format": FORMAT, **header, "numbers": list(numbers), "groups": sorted(groups)}
    # A single entry, since safetensors writes several in a random order.
    return safetensors.torch.save(own_storage(flat), metadata={HEADER: json.dumps(fields)})


def unpack(
    data: bytes, message: str
) -> tuple[dict[str, str], dict[str, float], dict[str, dict[str, Tensor]]]:
    """The header, numbers and groups of a message of the given kind; the inverse of `pack`.

    Texts and names of numbers are cleaned, since logs, the terminal and reports show them.
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
    for key, tensor in sorted(flat.items()):  # safetensors reads them in a random order
        group, slash, name = key.partition("/")
        if not slash or group not in groups:
            raise MessageError(f"the tensor {key!r} belongs to no group")
        groups[group][name] = tensor
    numbers = dict(zip(map(cleaned, names), values.tolist(), strict=True))
    if len(numbers) < len(names):
        raise MessageError(f"this {message} has two numbers of one name")
    return {key: cleaned(value) for key, value in header.items()}, numbers, groups


def whole_number(numbers: Numbers, name: str) -> int:
    """The number of that name; raises MessageError unless it is there and whole."""
    value = numbers.get(name, math.nan)
    if not 0 <= value < 2**53 or value != int(value):
        raise MessageError(f"{name} is {value}, expected a whole number")
    return int(value)


def _header(data: bytes) -> dict[str, Any]:
    """The fields of a message's header."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER, len(data) - 8):
        raise MessageError("these bytes are not a safetensors file")
    try:
        fields = json_text.parse(json_text.parse(data[8 : 8 + size])["__metadata__"][HEADER])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MessageError("these bytes have no readable header") from None
    if not isinstance(fields, dict):
        raise MessageError("these bytes have no readable header")
    return fields


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
