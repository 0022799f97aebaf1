"""deflate and zstd: every bit comes back, and what is no packed update is refused cheaply."""

import json
import random
import struct
import time
import tracemalloc
import zlib

import pytest
import torch
import zstandard

from hanse.federation.codecs.lossless import Lossless
from hanse.federation.compression.deflate import Deflate
from hanse.federation.compression.zstd import Zstd
from hanse.federation.messages import Update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, digest, fits, from_bytes, layout, shapes, to_bytes
from hanse.tensors.serialization import MessageError

CONTEXT = RoundContext(0, 1, "a")
TENSORS = {
    "layer.lora_A": torch.tensor([[1.5, -0.0], [torch.nan, torch.inf]]),
    "wide": torch.tensor([1 / 3, -(2.0**-1074)], dtype=torch.float64),
    "half": torch.tensor([[1.25], [-2.0]], dtype=torch.bfloat16),
    "größe": torch.tensor(7.0, dtype=torch.float16),
    "places": torch.tensor([-1, 2**15 - 1], dtype=torch.int16),
    "count": torch.tensor(2**40 + 3),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "signs": torch.tensor([-3, 4], dtype=torch.int8),
    "steps": torch.tensor([-(2**31)], dtype=torch.int32),
    "mask": torch.tensor([True, False, True]),
    "more": torch.full((3, 2), 0.1),
    "empty": torch.empty(0, 4),
}
every_codec = pytest.mark.parametrize(
    "codec", [Zstd(), Zstd(level=19, shuffle=False), Deflate(), Deflate(level=1, shuffle=False)]
)
BOMB = 10**9  # bytes


def blob(codec: Lossless, tensors: dict[str, torch.Tensor]) -> bytes:
    [data] = codec.encode(Update(tensors), {}, {}, CONTEXT).tensors.values()
    return to_bytes(data)


def decoded(codec: Lossless, data: bytes) -> dict[str, torch.Tensor]:
    name = f"{type(codec).__name__.lower()}.data"
    return dict(codec.decode(Update({name: from_bytes(data)}), {}, CONTEXT).tensors)


def packed(
    codec: Lossless, table: bytes, data: bytes, sizes: tuple[int, int] | None = None
) -> bytes:
    sizes = sizes or (len(table), len(data))
    return struct.pack("<IQ", *sizes) + codec.compress(table + data)


@every_codec
def test_every_bit_of_every_dtype_comes_back(codec: Lossless) -> None:
    result = decoded(codec, blob(codec, TENSORS))
    assert shapes(result) == shapes(TENSORS) and digest(result) == digest(TENSORS)


@every_codec
def test_an_update_without_tensors_comes_back(codec: Lossless) -> None:
    assert decoded(codec, blob(codec, {})) == {}


@pytest.mark.parametrize("codec", [Zstd(), Deflate()])
def test_bytes_of_equal_significance_stand_together(codec: Lossless) -> None:
    tensors = {"a": torch.tensor([1, 2], dtype=torch.int16), "b": torch.tensor([258]).short()}
    tensors["c"] = torch.tensor([9], dtype=torch.uint8)
    data = blob(codec, tensors)
    size, total = struct.unpack_from("<IQ", data)
    plain = codec.decompress(data[12:], size + total)
    rows = [["a", "I16", [2]], ["b", "I16", [1]], ["c", "U8", [1]]]
    assert json.loads(plain[:size]) == rows
    assert [*plain[size:]] == [1, 2, 2, 0, 0, 1, 9]


def test_shuffled_floats_are_shorter() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = {"w": torch.randn(50_000, generator=draw)}
    for kind in (Zstd, Deflate):
        assert len(blob(kind(), noise)) < 0.95 * len(blob(kind(shuffle=False), noise))


@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 400_000])
def test_bytes_that_do_not_compress_fit_the_layout(size: int) -> None:
    noise = {"w": torch.randint(0, 256, (size,), generator=torch.Generator().manual_seed(1)).byte()}
    for codec in (Zstd(), Zstd(level=1), Deflate(), Deflate(level=1), Deflate(level=9)):
        [form] = codec.layout(layout(noise), {}).values()
        assert fits(from_bytes(blob(codec, noise)), form)
        assert isinstance(form, Bounded) and len(form.largest) < 1.01 * size + 300


def test_noise_that_a_build_of_zlib_lengthens_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = zlib.compressobj
    monkeypatch.setattr(
        zlib, "compressobj", lambda level, *about: whole(0 if level == 0 else 9, *about)
    )
    monkeypatch.setattr(Deflate, "most", lambda self, size: 50)
    noise = bytes(range(256))
    stored = Deflate().compress(noise)
    assert len(stored) == 256 + 5 and Deflate().decompress(stored, 256) == noise


def test_tensors_of_varying_length_are_bounded_by_the_longest() -> None:
    rows: Layout = {"rows": Bounded(torch.empty(1000, 3, device="meta"))}
    draw = torch.Generator().manual_seed(2)
    for codec in (Zstd(), Deflate()):
        [form] = codec.layout(rows, {}).values()
        for count in (0, 7, 1000):
            data = blob(codec, {"rows": torch.randn(count, 3, generator=draw)})
            assert fits(from_bytes(data), form)


@pytest.mark.parametrize("codec", [Zstd(), Deflate()])
def test_what_is_no_packed_update_is_refused(codec: Lossless) -> None:
    table, data = b'[["a","F32",[2]]]', bytes(8)
    good = packed(codec, table, data)
    assert decoded(codec, good)["a"].tolist() == [0, 0]
    bad = {
        "nothing": b"",
        "a short header": good[:11],
        "no content": good[:12],
        "cut": good[:-1],
        "data behind the end": good + b"x",
        "two frames": good + codec.compress(table + data),
        "a smaller size": packed(codec, table, data, (len(table), 7)),
        "a larger size": packed(codec, table, data, (len(table), 9)),
        "a larger table": packed(codec, table, data, (len(table) + 1, 7)),
        "a table of all": packed(codec, table, data, (len(table) + 8, 0)),
        "a huge table": packed(codec, table, data, (2**32 - 1, 8)),
        "no table": packed(codec, b"{}", data),
        "a table for fewer": packed(codec, b'[["a","F32",[1]]]', data),
        "a table for more": packed(codec, b'[["a","F32",[2]],["b","F64",[3]]]', data),
        "a huge tensor": packed(codec, b'[["a","F32",[1099511627776]]]', data),
        "depth": packed(codec, b"[" * 100_000, b""),
    }
    for name, content in bad.items():
        with pytest.raises(MessageError):
            pytest.fail(f"{name}: {decoded(codec, content)}")
    for tensors in (
        {},
        {"w": torch.zeros(2)},
        {**codec.encode(Update(), {}, {}, CONTEXT).tensors, "w": torch.zeros(2)},
    ):
        with pytest.raises(MessageError):
            codec.decode(Update(tensors), {}, CONTEXT)
        with pytest.raises(MessageError):
            codec.decoded_bytes(Update(tensors), {})


def test_frames_of_zstd_with_no_content_are_refused() -> None:
    content = b'[["a","F32",[2]]]' + bytes(8)
    skipped = struct.pack("<II", 0x184D2A50, len(content)) + content
    unnamed = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    for frame in (skipped, unnamed):
        with pytest.raises(MessageError):
            decoded(Zstd(), struct.pack("<IQ", 17, 8) + frame)


def zeros_in_a_frame() -> bytes:
    """A frame of zstd that gives 1 GB of zeros, and names 20 bytes."""
    block = struct.pack("<I", 1 << 1 | (2**17 << 3))[:3] + b"\0"  # RLE: 128 KiB of one byte
    header = b"\x28\xb5\x2f\xfd" + bytes([0b00100000, 20])  # a single segment of 20 bytes
    last = struct.pack("<I", 1 | 1 << 1 | (1 << 3))[:3] + b"\0"
    return header + block * (BOMB // 2**17) + last


@pytest.mark.parametrize("kind", ["declared", "hidden"])
@pytest.mark.parametrize("codec", [Zstd(), Deflate()])
def test_bombs_are_refused_in_little_time_and_memory(codec: Lossless, kind: str) -> None:
    if isinstance(codec, Deflate):
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        zeros = bytes(2**20)
        content = b"".join(stream.compress(zeros) for _ in range(64)) + stream.flush()
    elif kind == "declared":
        content = zstandard.ZstdCompressor().compress(bytes(2**24))
    else:
        content = zeros_in_a_frame()
    sizes = (2, BOMB - 2) if kind == "declared" else (2, 18)
    message = Update(
        {f"{type(codec).__name__.lower()}.data": from_bytes(struct.pack("<IQ", *sizes) + content)}
    )
    expected = layout({"w": torch.zeros(1000)})
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(MessageError):
        Pipeline("upload", (codec,)).decode(message, {}, CONTEXT, expected)
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


@pytest.mark.parametrize("codec", [Zstd(), Deflate()])
def test_mutated_messages_decode_or_are_refused(codec: Lossless) -> None:
    draw, data = random.Random(0), blob(codec, TENSORS)
    refused = 0
    for _ in range(500):
        mutated = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            mutated[draw.randrange(len(data))] = draw.randrange(256)
        cut = draw.randrange(len(data)) if draw.random() < 0.2 else len(data)
        try:
            decoded(codec, bytes(mutated[:cut]))
        except MessageError:
            refused += 1
    assert refused > 100
