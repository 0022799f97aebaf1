"""Secret sharing: a threshold of shares gives the secret, one fewer gives nothing."""

import random
import secrets
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2

from hanse.security import secret_sharing
from hanse.security.secret_sharing import PRIME, rebuild, split
from hanse.tensors.serialization import MessageError

ZEROS, ONES = bytes(32), b"\xff" * 32
SECRETS = [ZEROS, ONES, bytes(range(32)), b"\0" * 31 + b"\1"]


def is_prime(number: int, bases: int = 64) -> bool:
    """Miller-Rabin; a composite number passes with a probability below 4**-bases."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    drawn = random.Random(0)
    for _ in range(bases):
        power = pow(drawn.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def interpolated(points: dict[int, int], place: int) -> int:
    """The value at a place of the polynomial through some points."""
    total = 0
    for i, value in points.items():
        for j in points:
            if j != i:
                value = value * (place - j) * pow(i - j, -1, PRIME) % PRIME
        total += value
    return total % PRIME


def test_the_modulus_is_the_smallest_prime_above_every_secret() -> None:
    assert [offset for offset in range(1, 298) if is_prime(2**256 + offset)] == [297]
    assert PRIME == 2**256 + 297 and is_prime(2**255 - 19) and not is_prime(2**256 - 1)


@pytest.mark.parametrize("secret", SECRETS, ids=["zeros", "ones", "mixed", "one"])
def test_any_threshold_of_the_shares_rebuild_the_secret(secret: bytes) -> None:
    for threshold in range(1, 6):
        shares = split(secret, threshold, [7, 1, 40, 3, 2**40])
        assert all(len(share) == 33 for share in shares.values())
        for count in range(6):
            for places in combinations(shares, count):
                found = rebuild({place: shares[place] for place in places}, threshold)
                assert found == (secret if count >= threshold else None)


def test_the_largest_graphs_rebuild() -> None:
    for secret in (secrets.token_bytes(32), secrets.token_bytes(32)):
        shares = split(secret, 67, range(1, 101))
        assert rebuild(shares, 67) == secret
        assert rebuild(dict(list(shares.items())[33:]), 67) == secret
        assert rebuild(dict(list(shares.items())[34:]), 67) is None


def test_a_threshold_above_the_number_of_places_is_never_reached() -> None:
    shares = split(ONES, 4, [1, 2, 3])
    assert rebuild(shares, 4) is None
    assert rebuild(shares, 3) != ONES


def test_one_share_fewer_agrees_with_every_secret() -> None:
    """For each candidate, the known shares lie on a polynomial of the right degree through it."""
    threshold, others = 4, range(4, 8)
    known = split(SECRETS[2], threshold, [1, 2, 3])
    for candidate in [*SECRETS, *(secrets.token_bytes(32) for _ in range(20))]:
        points = {0: int.from_bytes(candidate)}
        points |= {place: int.from_bytes(share) for place, share in known.items()}
        shares = {place: interpolated(points, place).to_bytes(33) for place in others} | known
        for places in combinations(shares, threshold):
            assert rebuild({place: shares[place] for place in places}, threshold) == candidate


@pytest.mark.parametrize("secret", [ZEROS, ONES], ids=["zeros", "ones"])
def test_shares_below_the_threshold_are_uniform(secret: bytes) -> None:
    """Bytes of two shares, and the XOR of both, of 20,000 splits with threshold 3."""
    splits = [split(secret, 3, [1, 2]) for _ in range(20_000)]
    pairs = np.array([[list(shares[place]) for place in (1, 2)] for shares in splits], np.uint8)
    for column in (1, 16, 32):  # byte 0 is 0, except for 297 of 2**256 numbers
        first, second = pairs[:, 0, column], pairs[:, 1, column]
        for values in (first, second, first ^ second):
            counts = np.bincount(values, minlength=256)
            expected = len(splits) / 256
            statistic = float(((counts - expected) ** 2 / expected).sum())
            assert chi2.sf(statistic, 255) > 1e-7


def test_two_splits_of_one_secret_have_no_share_in_common() -> None:
    first, second = split(ONES, 2, range(1, 9)), split(ONES, 2, range(1, 9))
    assert not {*first.values()} & {*second.values()}


def test_malformed_shares_are_refused_by_their_place() -> None:
    shares = split(ONES, 2, [1, 2, 3])
    for bad in (b"", shares[3][1:], shares[3] + b"\0"):
        with pytest.raises(MessageError, match=f"place 3 has {len(bad)} bytes, not 33"):
            rebuild(shares | {3: bad}, 2)
    assert rebuild(shares | {3: (PRIME - 1).to_bytes(33)}, 2) == ONES  # a number, but forged
    for number in (PRIME, 2**264 - 1):
        with pytest.raises(MessageError, match="place 3 is no number below"):
            rebuild(shares | {3: number.to_bytes(33)}, 2)


def test_shares_of_no_secret_of_32_bytes_are_refused() -> None:
    for number in (2**256, PRIME - 1):
        points = {0: number, 1: 5}
        shares = {place: interpolated(points, place).to_bytes(33) for place in (1, 2)}
        with pytest.raises(MessageError, match="do not belong to one secret"):
            rebuild(shares, 2)


def test_wrong_arguments_are_refused() -> None:
    for secret in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            split(secret, 1, [1])
    for places in ([0], [-1], [PRIME]):
        with pytest.raises(ValueError, match="place"):
            split(ZEROS, 1, places)
        with pytest.raises(ValueError, match="place"):
            rebuild({places[0]: bytes(33)}, 1)
    with pytest.raises(ValueError, match="same place"):
        split(ZEROS, 1, [2, 2])
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="threshold"):
            split(ZEROS, wrong, [1])
        with pytest.raises(ValueError, match="threshold"):
            rebuild({}, wrong)


def test_the_factors_of_the_same_places_are_computed_once() -> None:
    secret_sharing._factors.cache_clear()
    for secret in SECRETS:
        shares = split(secret, 2, [3, 5, 9])
        assert rebuild(shares, 2) == secret
        assert rebuild(dict(reversed(shares.items())), 2) == secret
    assert secret_sharing._factors.cache_info().misses == 1
