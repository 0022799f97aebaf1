"""Encoded tensors of strangers: a codec refuses them, or gives tensors that the gate accepts."""

import random
import resource
import time
from collections import Counter

import pytest
import torch

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
        if codec.decoded_bytes(update, pipeline._state(0, states)) > 10**9:
            return "refused"
        decoded = codec.decode(update, pipeline._state(0, states), CONTEXT)
        validate_update(decoded, expected)
    except MessageError:
        return "refused"
    return "accepted"


@every_codec
def test_changed_tensors_are_refused_or_decode_to_what_is_expected(name: str) -> None:
    codec, draw = build(name), random.Random(name)
    message, verdicts = encoded(codec), Counter[str]()
    assert judge(codec, message) == "accepted"
    bombs()  # made before memory is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(MUTATIONS):
        what, changed = mutated(message, draw)
        start = time.perf_counter()
        try:
            verdicts[judge(codec, changed)] += 1
        except Exception as error:
            pytest.fail(f"{name}, {what}: {error!r}")
        assert time.perf_counter() - start < MOST_SECONDS, what
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MOST_MEMORY
    assert verdicts["refused"] > MUTATIONS // 4


@every_codec
@pytest.mark.parametrize("kind", ["zstd", "zstd without its size", "zlib", "deflate", "gzip"])
def test_bombs_are_refused(name: str, kind: str) -> None:
    """Bytes that unpack to a gigabyte in place of each tensor of bytes that the codec sends."""
    codec, bomb = build(name), from_bytes(bombs()[kind])
    message = encoded(codec)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key in [key for key, tensor in message.items() if tensor.dtype == torch.uint8]:
        start = time.perf_counter()
        assert judge(codec, {**message, key: bomb}) == "refused", key
        assert time.perf_counter() - start < MOST_SECONDS
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MOST_MEMORY
