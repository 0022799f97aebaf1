"""Messages with something wrong, for tests and benchmarks that feed them to readers."""

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch

from hanse.federation.messages import Instruction, Reply, Request, Update

Draw = random.Random
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F4", "C64", "object", "")
NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, -1.0, 0.5, 2.0**53)


def reply(client: str, tensors: dict[str, torch.Tensor]) -> bytes:
    """A valid reply in round 1."""
    return Reply(client, "train", 1, Update(tensors, {"loss": 0.5, "steps": 3.0}, 8.0)).pack()


def file(header: Any, data: bytes = b"") -> bytes:
    """Bytes in the format of safetensors, with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a valid message."""
    first = 8 + int.from_bytes(message[:8], "little")
    return json.loads(message[8:first]), message[first:]


def mutated(message: bytes, draw: Draw) -> tuple[str, bytes]:
    """What was done, and a message that differs from a valid one in more than free texts."""
    while True:
        what = draw.choice(sorted(CHANGES))
        changed = CHANGES[what](message, draw)
        if changed != message and not _means_the_same(changed, message):
            return what, changed


def _means_the_same(changed: bytes, message: bytes) -> bool:
    """True if nothing but names of numbers that nobody needs has changed."""
    try:
        return _content(changed) == _content(message)
    except Exception:  # it cannot be read by others, either
        return False


def _content(message: bytes) -> tuple[object, ...]:
    """All that counts in a message, as other software reads it."""
    tensors = safetensors.torch.load(message)
    fields = json.loads(split(message)[0]["__metadata__"]["hanse"])
    names = fields.pop("numbers")
    needed = [names.index(name) for name in ("round", "weight")]
    values = {name: (t.dtype, t.shape, t.tolist()) for name, t in tensors.items()}
    return len(names), len(set(names)), needed, fields, values


def _flip(message: bytes, draw: Draw) -> bytes:
    """Some bits of the length and the header."""
    wrong = bytearray(message)
    end = 8 + int.from_bytes(message[:8], "little")
    for _ in range(draw.choice((1, 1, 2, 8))):
        wrong[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(wrong)


def _letter(message: bytes, draw: Draw) -> bytes:
    wrong = bytearray(message)
    end = 8 + int.from_bytes(message[:8], "little")
    wrong[draw.randrange(8, end)] = draw.choice(b'0123456789[]{}",:ab/#')
    return bytes(wrong)


def _spliced(message: bytes, draw: Draw) -> bytes:
    """The header of another message before the data of this one, or the other way round."""
    other = draw.choice(
        (
            Request("train", 1, 0, Instruction({"weight": torch.ones(3, 4)}, {"mu": 1.0})).pack(),
            Reply("c0", "train", 1, Update({"weight": torch.ones(99)}, {}, 8.0)).pack(),
            Reply("c0", "evaluate", 2, error="no").pack(),
        )
    )
    (mine, data), (theirs, others) = split(message), split(other)
    return draw.choice((file(theirs, data), file(mine, others), file({**mine, **theirs}, data)))


def _entry(message: bytes, draw: Draw, key: str, value: Any) -> bytes:
    header, data = split(message)
    header[draw.choice([name for name in header if name != "__metadata__"])][key] = value
    return file(header, data)


def _fields(message: bytes, /, **more: Any) -> bytes:
    header, data = split(message)
    fields = json.loads(header["__metadata__"]["hanse"])
    return file({**header, "__metadata__": {"hanse": json.dumps({**fields, **more})}}, data)


def _shape(message: bytes, draw: Draw) -> bytes:
    sides = (0, 1, 2, 3, 4, 12, -1, 2**31, 2**63, 2**64, True, 1.5, None, "3", [3])
    return _entry(message, draw, "shape", [draw.choice(sides) for _ in range(draw.randrange(4))])


def _offsets(message: bytes, draw: Draw) -> bytes:
    places = (0, 1, 8, 48, 64, -8, 2**33, 2**64, None, "0")
    return _entry(message, draw, "data_offsets", [draw.choice(places), draw.choice(places)])


def _value(message: bytes, draw: Draw) -> bytes:
    """A weight, loss, round or element that no valid message has."""
    header, data = split(message)
    wrong, values = bytearray(data), header["#"]["data_offsets"]
    names = json.loads(header["__metadata__"]["hanse"])["numbers"]
    if draw.random() < 0.5:
        name = draw.choice(("round", "weight", "update/loss"))
        value = draw.choice(NUMBERS[:5] if name == "update/loss" else NUMBERS)
        value = -1e308 if name == "weight" and 0 <= value < 10 else value
        struct.pack_into("<d", wrong, values[0] + 8 * names.index(name), value)
    else:
        start, stop = header["update/weight"]["data_offsets"]
        place = draw.randrange(start, stop, 4)
        struct.pack_into("<f", wrong, place, draw.choice((math.nan, math.inf, -math.inf)))
    return file(header, bytes(wrong))


def _twice(message: bytes, draw: Draw) -> bytes:
    """One name for two tensors, two texts or two numbers."""
    header, data = split(message)
    text = json.dumps(header)
    name = draw.choice([*header])
    double = text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}" + "}"
    names = json.loads(header["__metadata__"]["hanse"])["numbers"]
    numbers = [draw.choice(names)] * len(names)
    return draw.choice((file(double.encode(), data), _fields(message, numbers=numbers)))


def _named(message: bytes, draw: Draw) -> bytes:
    """A tensor under another name."""
    header, data = split(message)
    name = draw.choice(("update/weight", "update/bias", "#"))
    other = draw.choice(("", "/", "update/", "other/a", "update/" + "x" * 9000, "\x1b[2J\n", "#"))
    entry = header.pop(name)
    return file({**header, other if other != name else "##": entry}, data)


def _text(message: bytes, draw: Draw) -> bytes:
    """A field of our own header that is of another type or value."""
    key = draw.choice(("format", "message", "kind", "client", "numbers", "groups"))
    return _fields(
        message, **{key: draw.choice((None, 1, [], {}, "x" * 5000, [1], "c0", 10**4000))}
    )


CHANGES: dict[str, Callable[[bytes, Draw], bytes]] = {
    "bits": _flip,
    "letter": _letter,
    "cut": lambda message, draw: message[: draw.randrange(len(message))],
    "longer": lambda message, draw: message + draw.randbytes(draw.randrange(1, 50)),
    "spliced": _spliced,
    "dtype": lambda message, draw: _entry(message, draw, "dtype", draw.choice(DTYPES)),
    "shape": _shape,
    "offsets": _offsets,
    "value": _value,
    "twice": _twice,
    "name": _named,
    "text": _text,
}


def tiny_tensors(number: int) -> bytes:
    """A reply of so many tensors of one byte."""
    entries = ",".join(
        f'"update/{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n + 16},{n + 17}]}}'
        for n in range(number)
    )
    fields = {"format": "hanse/1", "message": "reply", "kind": "train", "client": "c"}
    fields |= {"numbers": ["round", "weight"], "groups": ["update"]}  # type: ignore[dict-item]
    meta = json.dumps({"hanse": json.dumps(fields)})
    numbers = '"#":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}'
    text = f'{{"__metadata__":{meta},{numbers},{entries}}}'.encode()
    return file(text, struct.pack("<dd", 1.0, 1.0) + bytes(number))


def bombs() -> dict[str, bytes]:
    """Small messages that claim or would take much memory or time to read."""
    deep = 10**5
    large = {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}
    million = tiny_tensors(10**6)
    return {
        "a header of 8 GB": struct.pack("<Q", 2**33) + b"{}",
        "a tensor of 8 GB": file({"__metadata__": {"hanse": "{}"}, "a": large}, bytes(64)),
        "deep lists": file(b"[" * deep),
        "deep objects": file(b'{"a":' * deep + b"1" + b"}" * deep),
        "a deep header of our own": file({"__metadata__": {"hanse": "[" * deep}}),
        "a million tiny tensors": million,
        "tiny tensors within 4 MB": tiny_tensors(50_000),
        "tiny tensors within the count": tiny_tensors(12_000),
        "empty lists": file(b'{"a":[' + b"[]," * 1_300_000 + b"[]]}"),
        "objects within the count": file(b'{"a":[' + b'{"b":0},' * 49_000 + b"0]}"),
        "wide letters": file('{"a":"😀'.encode() + b"x" * (4 * 2**20 - 20) + b'"}'),
        "a long number": file(b'{"a":' + b"9" * 4_000_000 + b"}"),
    }
