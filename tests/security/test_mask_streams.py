"""Mask streams: exact, reversible, uniform, and different for every seed."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.stats import chi2

from hanse.security import mask_streams
from hanse.security.mask_streams import CHUNK, add

SEED = hashlib.sha256(b"a seed of the tests").digest()
TYPES = [np.uint16, np.uint32, np.uint64]
Array = NDArray[np.unsignedinteger[Any]]


def stream(seed: bytes, size: int) -> bytes:
    """The first bytes of a seed's stream, encrypted at one go."""
    return Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def twin(words: Sequence[Array], seed: bytes, sign: int) -> list[list[int]]:
    """The masked words as Python's integers, one after another."""
    bytes_left = stream(seed, sum(array.nbytes for array in words))
    masked = []
    for array in words:
        size, flat = array.itemsize, []
        for word in array.ravel().tolist():
            flat.append((word + sign * int.from_bytes(bytes_left[:size], "little")) % 256**size)
            bytes_left = bytes_left[size:]
        masked.append(flat)
    return masked


def drawn(dtype: type, *shape: int) -> Array:
    most = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, most, shape, dtype, endpoint=True)


def flat(words: Sequence[Array]) -> list[list[int]]:
    return [array.ravel().tolist() for array in words]


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """The first block is the encrypted zero block: FIPS 197 by an independent mode."""
    words = [np.zeros(4, np.uint32)]
    add(words, SEED, 1)
    block = Cipher(algorithms.AES(SEED), modes.ECB()).encryptor().update(bytes(16))
    assert words[0].tobytes() == block


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", TYPES)
def test_masks_equal_those_of_whole_numbers(dtype: type, sign: int) -> None:
    words = [drawn(dtype, 3), drawn(dtype, 0), drawn(dtype, 5, 7), drawn(dtype), drawn(dtype, 50)]
    expected = twin(words, SEED, sign)
    add(words, SEED, sign)
    assert flat(words) == expected


def test_one_stream_runs_through_arrays_of_all_types() -> None:
    words = [drawn(np.uint16, 3), drawn(np.uint64, 5), drawn(np.uint32, 1), drawn(np.uint16, 9)]
    expected = twin(words, SEED, 1)
    add(words, SEED, 1)
    assert flat(words) == expected


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_chunks_are_not_seen(dtype: type, extra: int) -> None:
    per_chunk = CHUNK // np.dtype(dtype).itemsize
    words = [np.zeros(size + extra, dtype) for size in (5, per_chunk, 2 * per_chunk)]
    total = sum(array.nbytes for array in words)
    add(words, SEED, 1)
    assert b"".join(array.tobytes() for array in words) == stream(SEED, total)


def test_small_chunks_make_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_streams, "CHUNK", 24)  # no multiple of an AES block
    words = [drawn(np.uint64, 31), drawn(np.uint16, 31)]
    expected = twin(words, SEED, -1)
    add(words, SEED, -1)
    assert flat(words) == expected


@pytest.mark.parametrize("dtype", TYPES)
def test_a_mask_that_was_added_is_taken_off_in_place(dtype: type) -> None:
    words = [drawn(dtype, 1000), drawn(dtype, 40, 25)]
    before, places = [array.copy() for array in words], [array.ctypes.data for array in words]
    add(words, SEED, 1)
    assert not any(np.array_equal(*pair) for pair in zip(words, before, strict=True))
    add(words, SEED, -1)
    assert all(np.array_equal(*pair) for pair in zip(words, before, strict=True))
    assert [array.ctypes.data for array in words] == places


@pytest.mark.parametrize("dtype", TYPES)
def test_a_masked_constant_is_uniform(dtype: type) -> None:
    """Chi-square of each byte of 10**6 masked words, 256 bins."""
    words = np.full(10**6, 12345, dtype)
    add([words], SEED, 1)
    for column in words.view(np.uint8).reshape(len(words), -1).T:
        counts = np.bincount(column, minlength=256)
        expected = len(words) / 256
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert chi2.sf(statistic, 255) > 1e-4


def test_every_bit_of_the_seed_changes_the_whole_stream() -> None:
    before = np.frombuffer(stream_of(SEED, 4096), np.uint8)
    for bit in range(256):
        other = int.from_bytes(SEED) ^ (1 << bit)
        after = np.frombuffer(stream_of(other.to_bytes(32), 4096), np.uint8)
        assert np.unpackbits(before ^ after).mean() > 0.45


def test_seeds_whose_words_have_the_same_xor_have_other_streams() -> None:
    """A generator whose seed is a fold of the words would give the same stream for each pair."""
    words = np.frombuffer(SEED, np.uint32)
    streams = {stream_of(SEED, 4096)}
    for first in range(8):
        for second in range(first):
            changed, swapped = words.copy(), words.copy()
            changed[[first, second]] ^= np.uint32(0x9E3779B9)
            swapped[[first, second]] = words[[second, first]]
            for other in (changed, swapped):
                assert np.bitwise_xor.reduce(other) == np.bitwise_xor.reduce(words)
                streams.add(stream_of(other.tobytes(), 4096))
    assert len(streams) == 1 + 2 * 28


def stream_of(seed: bytes, size: int) -> bytes:
    """The first bytes of the stream as `add` makes it."""
    words = np.zeros(size // 4, np.uint32)
    add([words], seed, 1)
    return words.tobytes()


def test_wrong_arguments_are_refused_before_anything_changes() -> None:
    fixed = np.zeros(4, np.uint32)
    fixed.flags.writeable = False
    wrong: list[Any] = [
        np.zeros(4, np.int32),
        np.zeros(4, np.float32),
        np.zeros(4, np.uint8),
        np.zeros(4, ">u4"),
        np.zeros((4, 4), np.uint32).T,
        np.zeros(8, np.uint32)[::2],
        fixed,
    ]
    good = np.zeros(4, np.uint32)
    for array in wrong:
        with pytest.raises(ValueError, match="masked words"):
            add([good, array], SEED, 1)
    for seed in (b"", SEED[:16], SEED + b"\0"):  # AES takes keys of 16 bytes too
        with pytest.raises(ValueError, match="32 bytes"):
            add([good], seed, 1)
    for sign in (0, 2):
        with pytest.raises(ValueError, match="added"):
            add([good], SEED, sign)
    assert not good.any()
