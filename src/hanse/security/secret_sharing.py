"""Shamir's secret sharing: any `threshold` of the shares give a secret, fewer give nothing.

Source: A. Shamir, "How to share a secret", Communications of the ACM 22 (11), 1979. A secret is the
value at 0 of a polynomial over the integers modulo PRIME, whose other coefficients are uniformly
random; the share of place x is its value at x. PRIME is the smallest prime above 2**256, so every
secret of 32 bytes fits, and a share has 33 bytes.

A forged share is not noticed here: it leads to another secret, which the caller compares with a
commitment or a public key.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from hanse.tensors.serialization import MessageError

PRIME = 2**256 + 297
SECRET = 32  # bytes
SHARE = 33  # bytes, big endian


def split(secret: bytes, threshold: int, places: Sequence[int]) -> dict[int, bytes]:
    """The shares of a secret of 32 bytes, 33 bytes each, by place.

    threshold: shares that rebuild the secret, at least 1. It may exceed the number of places; then
    these shares do not suffice. places: distinct, at least 1. Raises ValueError otherwise.
    """
    if len(secret) != SECRET:
        raise ValueError(f"a secret has {SECRET} bytes, not {len(secret)}")
    if len(set(places)) < len(places):
        raise ValueError("two shares of a secret have the same place")
    _refuse(threshold, places)
    # The highest coefficient may be 0 like any other: otherwise fewer shares would tell something.
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret))
    return {place: _value(coefficients, place).to_bytes(SHARE) for place in places}


def rebuild(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret of 32 bytes from its shares by place; None if they are fewer than the threshold.

    The shares of the smallest places are used. Raises MessageError for any share that is malformed,
    and if the shares are not those of one secret of 32 bytes, where this is noticed.
    """
    _refuse(threshold, shares)
    values = {place: _parse(place, shares[place]) for place in sorted(shares)}
    if len(values) < threshold:
        return None
    places = tuple(values)[:threshold]
    factors = _factors(places)
    total = sum(f * values[place] for f, place in zip(factors, places, strict=True)) % PRIME
    if total >> (8 * SECRET):
        raise MessageError("the shares do not belong to one secret; one of them is forged")
    return total.to_bytes(SECRET)


def is_share(data: bytes) -> bool:
    """True for bytes that may be a share of some secret."""
    return len(data) == SHARE and int.from_bytes(data) < PRIME


def _refuse(threshold: int, places: Iterable[int]) -> None:
    if threshold < 1:
        raise ValueError(f"the threshold of a secret is at least 1, not {threshold}")
    for place in places:
        if not 1 <= place < PRIME:
            raise ValueError(f"the place of a share is 1 or higher and below PRIME, not {place}")


def _value(coefficients: Sequence[int], place: int) -> int:
    """The value of a polynomial at a place, by Horner's rule; highest coefficient first."""
    value = 0
    for coefficient in coefficients:
        value = (value * place + coefficient) % PRIME
    return value


def _parse(place: int, share: bytes) -> int:
    if len(share) != SHARE:
        raise MessageError(f"the share of place {place} has {len(share)} bytes, not {SHARE}")
    value = int.from_bytes(share)
    if value >= PRIME:
        raise MessageError(f"the share of place {place} is no number below 2**256 + 297")
    return value


@lru_cache(maxsize=1024)  # the secrets of one round are mostly rebuilt from the same places
def _factors(places: tuple[int, ...]) -> tuple[int, ...]:
    """The Lagrange factors at 0: Π over the other places j of j / (j − i), for each place i."""
    factors = []
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(factors)
