"""The generator gives the published numbers, and normals that depend on key and place alone."""

import math

import pytest
import torch

from hanse.tensors.philox import Key, normals, philox

CPU = torch.device("cpu")
MOST = 2**32 - 1
# Random123 1.14, tests/kat_vectors: counter, key, expected words of philox4x32 with 10 rounds.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MOST,) * 4, (MOST, MOST), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(counter: tuple[int, ...], key: Key) -> tuple[int, ...]:
    """Philox 4x32-10 in whole numbers of Python, by the paper's figure."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second >> 32 ^ b ^ low, second & MOST, first >> 32 ^ d ^ high, first & MOST
        low, high = low + 0x9E3779B9 & MOST, high + 0xBB67AE85 & MOST
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: Key, expected: tuple[int, ...]) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    assert tuple(int(word) for word in philox((a, b, c, d), key)) == expected
    assert words(counter, key) == expected


def test_many_counters_at_once() -> None:
    draw = torch.Generator().manual_seed(3)
    a, b, c, d = torch.randint(2**32, (4, 200), generator=draw).unbind()
    counters = torch.stack([a, b, c, d], dim=1).tolist()
    drawn = torch.stack(philox((a, b, c, d), (7, 2**32 - 5)), dim=1).tolist()
    assert [tuple(row) for row in drawn] == [words(tuple(row), (7, 2**32 - 5)) for row in counters]


def test_normals_are_box_and_mullers_of_the_words() -> None:
    key, start = (5, 6), 2**34 + 8  # above 2³² counters, the second word counts, too
    drawn = normals(key, start, 40, CPU).tolist()
    for place in range(0, 40, 2):
        counter = (start + place) // 4
        made = words((counter & MOST, counter >> 32, 0, 0), key)
        u, v = ((made[(start + place) % 4 + more] + 0.5) / 2**32 for more in (0, 1))
        radius = math.sqrt(-2 * math.log(u))
        assert abs(drawn[place] - radius * math.cos(2 * math.pi * v)) < 1e-6
        assert abs(drawn[place + 1] - radius * math.sin(2 * math.pi * v)) < 1e-6


def test_a_place_has_its_normal_whatever_is_drawn_with_it() -> None:
    whole = normals((1, 2), 0, 100, CPU)
    for start, number in [(0, 1), (1, 5), (3, 2), (97, 3), (50, 50)]:
        assert torch.equal(normals((1, 2), start, number, CPU), whole[start : start + number])


def test_normals_are_normal_and_keys_independent() -> None:
    first, second = normals((1, 2), 0, 200_000, CPU), normals((1, 3), 0, 200_000, CPU)
    for drawn in (first, second):
        assert abs(float(drawn.mean())) < 0.01
        assert abs(float(drawn.var()) - 1) < 0.02
        assert abs(float((drawn**4).mean()) - 3) < 0.1
    for other in (second, first.roll(1), normals((2, 2), 0, 200_000, CPU)):
        assert abs(float((first * other).mean())) < 0.01
