"""2,000 mutated messages, bombs, and changed tensors of every codec: seconds and memory of each.

Each message is read as the server reads a reply: its size, its header, then each tensor against the
layout that is due. Bombs are also read where no layout is known, as a silo reads a request. Gates:
a mutated message is refused within 50 ms, a bomb within 1 s, with at most 64 MB more memory. The
messages are those of the tests (tests/hostile_messages.py). Writes benchmarks/results/hostile.json.
Linux only: memory is read from /proc.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from measured import ROOT, keep
from scale import alone, forget, peak, resident

from hanse import registry
from hanse.federation.exchange.screening import refuse_large
from hanse.federation.exchange.spool import Spool
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Reply, Request, Update, validate_update
from hanse.federation.pipeline import Pipeline, TransformStates
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, from_bytes, layout
from hanse.tensors.serialization import MessageError

MESSAGES = 2000
CODECS = "federation/compression"
CONTEXT = RoundContext(0, 1, "a", rounds=3)


def tests(module: str) -> Any:
    """A module of the tests."""
    sys.path.append(str(ROOT / "tests"))
    return __import__(module)


def measured(work: Callable[[], object]) -> dict[str, Any]:
    """Seconds and bytes of a refusal."""
    forget()
    before, start = resident(), time.perf_counter()
    try:
        work()
        refused = False
    except MessageError:
        refused = True
    return {
        "refused": refused,
        "seconds": time.perf_counter() - start,
        "bytes": max(0, peak() - before),
    }


def read(message: bytes, client: str, due: Layout) -> None:
    """Read a reply as the server does; raises MessageError."""
    refuse_large(message, due)
    reply = Reply.parse(Spool().keep(message))
    if (reply.client, reply.kind, reply.round) != (client, "train", 1):
        raise MessageError("it is no reply to this request")
    validate_update(reply.update, due)


def mutations() -> dict[str, Any]:
    """2,000 mutated messages."""
    hostile, draw = tests("hostile_messages"), random.Random(0)
    tensors = {"weight": torch.randn(3, 4), "bias": torch.randn(3)}
    due, message = layout(tensors), hostile.reply("c", tensors)
    read(message, "c", due)
    changed = [hostile.mutated(message, draw)[1] for _ in range(MESSAGES)]
    forget()
    before = resident()
    rows = [measured(partial(read, wrong, "c", due)) for wrong in changed]
    seconds = [row["seconds"] for row in rows]
    return {
        "messages": MESSAGES,
        "refused": sum(row["refused"] for row in rows),
        "median_seconds": median(seconds),
        "most_seconds": max(seconds),
        "most_bytes": max(row["bytes"] for row in rows),
        "kept_bytes": max(0, resident() - before),
    }


def bombs() -> list[dict[str, Any]]:
    """Each bomb as a reply at the server, and as a request at a silo."""
    due = layout({"weight": torch.randn(3, 4)})
    rows = []
    for what, message in tests("hostile_messages").bombs().items():
        readers: dict[str, Callable[[], object]] = {
            "server": partial(read, message, "c", due),
            "silo": partial(Request.parse, message),
        }
        rows += [{"what": what, "reader": name, **measured(work)} for name, work in readers.items()]
    return rows


def decode(pipeline: Pipeline, states: TransformStates, message: Tensors, due: Layout) -> None:
    """Decode an update whose encoded layout is not known; raises MessageError."""
    validate_update(pipeline.decode(Update(message), states, CONTEXT, due), due)


def codecs() -> list[dict[str, Any]]:
    """Bytes that unpack to a gigabyte, in each tensor of bytes of each codec."""
    update = {"layer.A": torch.randn(8, 768), "layer.B": torch.randn(768, 8)}
    rows = []
    for name in registry.names(CODECS):
        try:
            codec = registry.build(CODECS, name)
        except Exception:  # it cannot do without settings, such as the file of a trained network
            continue
        assert isinstance(codec, Transform)
        pipeline = Pipeline("upload", (codec,), weights={0: codec.weights()})
        states = pipeline.init(layout(update))
        message = pipeline.encode(Update(update), {}, states, CONTEXT).tensors
        for kind, bomb in tests("hostile_tensors").bombs().items():
            for key in [key for key, tensor in message.items() if tensor.dtype == torch.uint8]:
                wrong: Tensors = {**message, key: from_bytes(bomb)}
                work = partial(decode, pipeline, states, wrong, layout(update))
                rows.append({"codec": name, "bomb": kind, "tensor": key, **measured(work)})
    return rows


def main() -> None:
    """Measure, print the gates, keep the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    flood, exploding, coded = alone(mutations), alone(bombs), alone(codecs)
    print(
        f"{flood['refused']:,} of {flood['messages']:,} messages refused, each within "
        f"{1000 * flood['most_seconds']:.1f} ms (gate 50), {flood['most_bytes'] / 2**20:.1f} MB"
    )
    for title, rows in (("bombs", exploding), ("packed bombs", coded)):
        refused, slowest = sum(row["refused"] for row in rows), max(rows, key=_seconds)
        most = max(row["bytes"] for row in rows) / 2**20
        print(
            f"{title}: {refused} of {len(rows)} refused, each within {slowest['seconds']:.2f} s "
            f"(gate 1), {most:.0f} MB (gate 64)"
        )
    print(keep("hostile", {"mutated": flood, "bombs": exploding, "codecs": coded}))


def _seconds(row: dict[str, Any]) -> float:
    return float(row["seconds"])


if __name__ == "__main__":
    main()
