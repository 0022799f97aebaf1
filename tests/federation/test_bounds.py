"""What is refused costs little: bounds of memory and time for bombs, and for changed bytes.

Measured in a process of its own, whose peak of memory nothing else has raised. Seconds are those of
the processor, and generous, so that they hold on a slow machine.
"""

import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hanse.deployment import sockets
from hanse.deployment.envelopes import BadEnvelopeError, Envelope, SiloReply
from hanse.deployment.silo.agreement import content, stated
from hanse.errors import UserError
from hanse.federation.exchange.screening import refuse_large
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request, Update
from hanse.security.signatures import MAGIC, Outbox, Untrusted, verify
from hanse.tensors.serialization import MessageError

Refusals = (MessageError, BadEnvelopeError, Untrusted, UserError)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KNOWN = {"server": KEY.public_key()}
MUTATIONS = 2000
DUE = {"weight": torch.empty(3, 4, device="meta")}  # what the server waits for
MIB = 2**20


def a_reply(data: bytes) -> Reply:
    """What the server does with a reply."""
    refuse_large(data, DUE)
    return Reply.parse(data)


def a_frame(data: bytes) -> sockets.Frame:
    try:
        return sockets.unpack(data)
    except ValueError as error:
        raise BadEnvelopeError(str(error)) from None


def a_statement(data: bytes) -> object:
    body = content(torch.frombuffer(bytearray(data or b"0"), dtype=torch.uint8))
    found = None if body is None else stated(body)
    if found is None:
        raise MessageError("it is no statement")
    return found


READERS: dict[str, Callable[[bytes], Any]] = {
    "request": Request.parse,
    "reply": a_reply,
    "envelope": Envelope.parse,
    "answer": SiloReply.parse,
    "frame": a_frame,
    "signed": lambda data: verify(data, KNOWN),
    "statement": a_statement,
}


def valid() -> dict[str, bytes]:
    """One of each kind, which its reader takes."""
    tensors = {"weight": torch.ones(3, 4)}
    request = Request(
        "train", 1, 0, Instruction(tensors, {"mu": 0.1}), {"upload.0": tensors}
    ).pack()
    reply = Reply("c1", "train", 1, Update(tensors, {"loss": 1.0}, 2.0)).pack()
    envelope = Envelope("run1", "rounds: 3\n", "rows", "model", "{}", request=request).pack()
    profile = ClientProfile("c1", 9, {"rank": 4.0, "scaling": 2.0})
    answer = SiloReply("c1", "session", profile, body=reply).pack()
    signed = Outbox("server", KEY).request(envelope, "run1", 1, "c1")[0]
    statement = Outbox("c1", KEY).request(b'{"layout": "a", "digest": "b"}', "run1", 1, "silos")[0]
    found = {"request": request, "reply": reply, "envelope": envelope, "answer": answer}
    return (
        found
        | {"frame": sockets.pack({"is": "nodes"}, b"x"), "signed": signed}
        | {"statement": statement}
    )


def mutations(whole: bytes, draw: Random) -> bytes:
    """The bytes with something wrong, mostly near the beginning, where lengths and heads are."""
    wrong, end = bytearray(whole), min(len(whole), draw.choice((16, 400, len(whole))))
    kind = draw.randrange(6)
    at = draw.randrange(end)
    if kind == 0:
        return bytes(wrong[:at])
    if kind == 1:
        return bytes(wrong[:at]) + draw.randbytes(draw.randrange(64)) + bytes(wrong[at:])
    if kind == 2:
        del wrong[at : at + draw.randrange(1, 9)]
    elif kind == 3:
        wrong[at : at + 8] = draw.choice((b"\xff" * 8, bytes(8), struct.pack("<Q", 2**33)))
    else:
        for _ in range(draw.choice((1, 1, 3))):
            wrong[draw.randrange(end)] = draw.choice(
                (draw.randrange(256), *b'0123456789[]{}",:/\\')
            )
    return bytes(wrong)


def head(text: bytes) -> bytes:
    """A frame with this head."""
    return sockets.HEAD.pack(len(text), 0) + text


def header(text: bytes) -> bytes:
    """A safetensors file with this header."""
    return struct.pack("<Q", len(text)) + text


def tiny(tensors: int) -> bytes:
    fields = {"format": "hanse/1", "message": "reply", "kind": "train", "client": "c1"}
    meta = {"hanse": json.dumps({**fields, "numbers": ["round", "weight"], "groups": ["update"]})}
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [16, 16]}
    text: dict[str, Any] = {"__metadata__": meta, "#": {**empty, "dtype": "F64", "shape": [2]}}
    text["#"]["data_offsets"] = [0, 16]
    one = json.dumps(empty)  # not a dict of all, which would itself take the memory
    more = "".join(f', "update/{number}": {one}' for number in range(tensors))
    return header((json.dumps(text)[:-1] + more + "}").encode()) + struct.pack("<dd", 1.0, 1.0)


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """By name and reader: few bytes that would take much, or many where few are due."""
    deep = b"[" * 100_000
    yield "8 GB of header", "request", struct.pack("<Q", 8 * 2**30) + b"{}"
    yield "8 GB of header to the server", "reply", struct.pack("<Q", 8 * 2**30) + b"{}"
    for reader in ("request", "reply"):
        yield f"a deep header of a {reader}", reader, header(deep)
        text = b'{"__metadata__": {"hanse": "' + deep + b'"}}'
        yield f"deep metadata of a {reader}", reader, header(text)
        claim = b'{"a": {"dtype": "F32", "shape": [2147483648], "data_offsets": [0, 8589934592]}}'
        yield f"8 GB of a tensor in a {reader}", reader, header(claim)
    yield "180,000 tensors", "reply", tiny(180_000)
    yield "32 MiB where 48 bytes are due", "reply", bytes(32 * MIB)
    for reader in ("envelope", "answer", "frame"):
        yield f"a deep head of a {reader}", reader, head(deep)
        yield f"a head of 4 GB of a {reader}", reader, sockets.HEAD.pack(2**32 - 1, 2**63)
        yield f"a head of 2 MiB of a {reader}", reader, head(b'"' + b"a" * 2 * MIB + b'"')
    yield "a stamp of 4 GB", "signed", MAGIC + b"\xff" * 4 + bytes(100)
    yield "a deep stamp", "signed", MAGIC + (4000).to_bytes(4, "little") + deep
    yield "a deep statement", "statement", deep


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure() -> dict[str, Any]:
    """Try all of it, and say what it has cost."""
    whole, draw = valid(), Random(0)
    for name, data in whole.items():
        READERS[name](data)  # whatever is imported when it is first used
    result: dict[str, Any] = {"crashes": [], "slow": [], "taken": []}

    def tried(name: str, reader: str, data: bytes, most: float) -> bool:
        begun = time.process_time()
        try:
            READERS[reader](data)
            taken = True
        except Refusals:
            taken = False
        except Exception as error:
            result["crashes"].append(f"{name}: {error!r} {data[:200]!r}")
            taken = False
        if time.process_time() - begun > most:
            result["slow"].append(f"{name}: {time.process_time() - begun:.1f} s")
        return taken

    start = peak()
    refused = 0
    for number in range(MUTATIONS):
        reader = list(whole)[number % len(whole)]
        refused += not tried(f"{reader} {number}", reader, mutations(whole[reader], draw), 0.5)
    result |= {"refused": refused, "mutations": peak() - start}
    start = peak()
    sizes = 0
    for name, reader, data in bombs():
        sizes = max(sizes, len(data))
        if tried(name, reader, data, 2.0):
            result["taken"].append(name)
        del data
    return {**result, "bombs": peak() - start - 2 * sizes}  # made, and handed over, by us


def test_refusals_are_cheap() -> None:
    """2,000 changed messages, envelopes, answers, frames, stamps and statements, and the bombs."""
    words = [sys.executable, __file__]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["crashes"] == [] and cost["slow"] == [] and cost["taken"] == []
    assert cost["refused"] > MUTATIONS / 2
    assert cost["mutations"] < 100 * MIB
    assert cost["bombs"] < 64 * MIB


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_changed_is_read(name: str) -> None:
    assert READERS[name](valid()[name]) is not None


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    print(json.dumps(measure()))
