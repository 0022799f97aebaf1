"""Encoded tensors of strangers: a codec refuses them, or gives tensors that the gate accepts."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.test_codecs import CONTEXT, build, every_codec, tensors
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.tensors.named import Tensors, from_bytes, layout
from hanse.tensors.serialization import MessageError
from hostile_tensors import bombs, mutated

MUTATIONS = 200
MOST_MEMORY = 256 * 2**20  # bytes more at the peak; a bomb unpacks to four times as many
MOST_SECONDS = 5.0  # for one message; see benchmarks/hostile.py for the true figures


def pipeline_of(codec: Transform) -> tuple[Pipeline, dict[str, Tensors]]:
    pipeline = Pipeline("upload", (codec,), weights={0: codec.weights()})
    return pipeline, pipeline.init(layout(tensors(0)))


def encoded(codec: Transform) -> Tensors:
    pipeline, states = pipeline_of(codec)
    return pipeline.encode(Update(tensors(0)), {}, states, CONTEXT).tensors


def judge(codec: Transform, message: Tensors) -> str:
    """ "refused" or "accepted"; raises what a codec raises that is no MessageError."""
    pipeline, states = pipeline_of(codec)
    expected, update = layout(tensors(0)), Update(message)
    try:
        try:
            validate_update(update, pipeline.layout(expected, states))
        except MessageError:  # as a client reads a download, which it has no layout of
            dict(pipeline.decode(update, states, CONTEXT, expected).tensors)
            return "refused"
        limits = pipeline._limits(expected, states)
        decoded = pipeline._decode(update, states, CONTEXT, 0, limits)  # with the codec's own error
        validate_update(decoded, expected)
    except MessageError:
        return "refused"
    return "accepted"


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if more than MOST_MEMORY bytes become resident at the peak. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    yield
    assert resident("VmHWM") - before < MOST_MEMORY


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])


@every_codec
def test_changed_tensors_are_refused_or_decode_to_what_is_expected(name: str) -> None:
    codec, draw = build(name), random.Random(name)
    message, verdicts = encoded(codec), Counter[str]()
    assert judge(codec, message) == "accepted"
    bombs()  # made before memory is measured
    with bounded_memory():
        for _ in range(MUTATIONS):
            what, changed = mutated(message, draw)
            start = time.perf_counter()
            try:
                verdicts[judge(codec, changed)] += 1
            except Exception as error:
                pytest.fail(f"{name}, {what}: {error!r}")
            assert time.perf_counter() - start < MOST_SECONDS, what
    assert verdicts["refused"] > MUTATIONS // 4


@every_codec
@pytest.mark.parametrize("kind", ["zstd", "zstd without its size", "zlib", "deflate", "gzip"])
def test_bombs_are_refused(name: str, kind: str) -> None:
    """Bytes that unpack to a gigabyte in place of each tensor that the codec sends."""
    codec, bomb = build(name), from_bytes(bombs()[kind])
    message = encoded(codec)
    with bounded_memory():
        for key in message:
            start = time.perf_counter()
            assert judge(codec, {**message, key: bomb}) == "refused", key
            assert time.perf_counter() - start < MOST_SECONDS
