"""The keys of a round: both sides agree, nobody else does, and no secret leaves by accident."""

import copy
import hashlib
import json
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hanse.security import round_keys
from hanse.security.round_keys import (
    PublicKeys,
    RoundKeys,
    b_seed,
    is_commitment,
    public_mask_key,
    seed_between,
)
from hanse.tensors.serialization import MessageError

RUN = b"run 1, round 3, north and south"
OTHER = b"run 1, round 4, north and south"
FIELD = 2**255 - 19
# The points of low order on Curve25519 and its twist, as numbers (RFC 7748, section 7).
LOW = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    FIELD - 1,
    FIELD,
    FIELD + 1,
)


@pytest.fixture
def north() -> RoundKeys:
    return RoundKeys()


@pytest.fixture
def south() -> RoundKeys:
    return RoundKeys()


def low_order() -> list[bytes]:
    """Every encoding of a point of low order: the highest bit is ignored."""
    return [(number | top).to_bytes(32, "little") for number in LOW for top in (0, 1 << 255)]


def test_public_keys_have_96_bytes(north: RoundKeys) -> None:
    data = north.public.to_bytes()
    assert len(data) == 96 and PublicKeys.from_bytes(data) == north.public
    assert data == north.public.mask + north.public.share + north.public.commitment
    for wrong in (b"", data[1:], data + b"\0"):
        with pytest.raises(MessageError, match=f"96 bytes, not {len(wrong)}"):
            PublicKeys.from_bytes(wrong)
    with pytest.raises(MessageError, match="share of a client has 31 bytes, not 32"):
        PublicKeys(bytes(32), bytes(31), bytes(32))


def test_keys_are_new_every_time() -> None:
    made = [RoundKeys() for _ in range(5)]
    values = [
        *(keys.public.to_bytes()[start : start + 32] for keys in made for start in (0, 32, 64)),
        *(secret for keys in made for secret in (keys.b, keys.private_mask_key)),
    ]
    assert len({*values}) == 25 and all(len(value) == 32 for value in values)


def test_both_sides_and_the_server_have_the_same_seed(north: RoundKeys, south: RoundKeys) -> None:
    seed = north.mask_seed(south.public, RUN)
    assert len(seed) == 32 and seed == south.mask_seed(north.public, RUN)
    assert seed == seed_between(north.private_mask_key, south.public.mask, RUN)
    assert seed == seed_between(south.private_mask_key, north.public.mask, RUN)
    private = X25519PrivateKey.from_private_bytes(north.private_mask_key)
    peer = X25519PrivateKey.from_private_bytes(south.private_mask_key).public_key()
    info = b"hanse pairwise mask 1\0" + RUN
    assert seed == HKDF(SHA256(), 32, None, info).derive(private.exchange(peer))


def test_seeds_differ_by_context_peer_and_purpose(north: RoundKeys, south: RoundKeys) -> None:
    seeds = [
        *(north.mask_seed(south.public, context) for context in (RUN, OTHER, b"")),
        *(b_seed(keys.b, context) for keys in (north, south) for context in (RUN, OTHER, b"")),
        north.mask_seed(RoundKeys().public, RUN),
        seed_between(north.b, south.public.mask, RUN),
        b_seed(north.private_mask_key, RUN),
    ]
    assert len({*seeds, north.b, north.private_mask_key}) == len(seeds) + 2
    assert b_seed(north.b, RUN) == b_seed(bytes(north.b), RUN) and len(b_seed(north.b, RUN)) == 32


def test_the_commitment_is_to_b_only(north: RoundKeys, south: RoundKeys) -> None:
    commitment = north.public.commitment
    assert is_commitment(commitment, north.b)
    assert commitment == hashlib.sha256(b"hanse commitment to b 1\0" + north.b).digest()
    changed = bytes([north.b[0] ^ 1]) + north.b[1:]
    for wrong in (south.b, changed, b"", north.b + b"\0"):
        assert not is_commitment(commitment, wrong)
    assert not is_commitment(commitment[:31], north.b)


def test_a_rebuilt_private_key_is_checked_by_its_public_half(north: RoundKeys) -> None:
    assert public_mask_key(north.private_mask_key) == north.public.mask
    assert public_mask_key(north.b) != north.public.mask


def test_keys_are_those_of_the_standard() -> None:
    """The example of RFC 7748, section 6.1."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert public_mask_key(alice).hex() == public
    info = b"hanse pairwise mask 1\0" + RUN
    assert seed_between(alice, bob, RUN) == HKDF(SHA256(), 32, None, info).derive(shared)


def test_a_sealed_text_is_opened_by_its_receiver(north: RoundKeys, south: RoundKeys) -> None:
    text = bytes(66)
    box = north.seal(text, south.public, RUN)
    assert len(box) == len(text) + 16 and text not in box
    assert south.open(box, north.public, RUN) == text
    back = south.seal(text, north.public, RUN)
    assert back != box and north.open(back, south.public, RUN) == text
    assert south.open(north.seal(b"", south.public, OTHER), north.public, OTHER) == b""


def test_a_damaged_box_is_refused(north: RoundKeys, south: RoundKeys) -> None:
    box = north.seal(b"a text of some bytes", south.public, RUN)
    for place in range(len(box)):
        with pytest.raises(MessageError, match="damaged"):
            south.open(box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :], north.public, RUN)
        with pytest.raises(MessageError, match="damaged"):
            south.open(box[:place], north.public, RUN)
    with pytest.raises(MessageError, match="damaged"):
        south.open(box + b"\0", north.public, RUN)


def test_a_box_is_for_one_receiver_context_and_direction(
    north: RoundKeys, south: RoundKeys
) -> None:
    box, stranger = north.seal(b"text", south.public, RUN), RoundKeys()
    attempts = [
        (south, north.public, OTHER),
        (south, stranger.public, RUN),
        (stranger, north.public, RUN),
        (north, south.public, RUN),  # reflected to its sender
    ]
    for receiver, sender, context in attempts:
        with pytest.raises(MessageError, match="another client, round or run"):
            receiver.open(box, sender, context)


def test_no_key_encrypts_two_texts(north: RoundKeys, south: RoundKeys) -> None:
    box = north.seal(b"text", south.public, RUN)
    for text in (b"text", b"another text"):
        with pytest.raises(ValueError, match="two texts"):
            north.seal(text, south.public, RUN)
    others = [
        north.seal(b"text", south.public, OTHER),
        north.seal(b"text", RoundKeys().public, RUN),
        south.seal(b"text", north.public, RUN),
    ]
    assert len({box, *others}) == 4


def test_points_of_low_order_are_refused(north: RoundKeys) -> None:
    private = X25519PrivateKey.generate()
    for point in low_order():
        bad = PublicKeys(point, point, bytes(32))
        for attempt in (
            lambda bad=bad: north.mask_seed(bad, RUN),
            lambda bad=bad: north.seal(b"text", bad, RUN),
            lambda bad=bad: north.open(bytes(20), bad, RUN),
            lambda bad=bad: seed_between(private.private_bytes_raw(), bad.mask, RUN),
        ):
            with pytest.raises(MessageError, match="no secret can rest"):
                attempt()
    with pytest.raises(MessageError, match="no secret can rest"):
        seed_between(private.private_bytes_raw(), bytes(31), RUN)


def test_ones_own_key_is_not_a_peers(north: RoundKeys, south: RoundKeys) -> None:
    copied = PublicKeys(north.public.mask, north.public.share, south.public.commitment)
    for attempt in (
        lambda: north.mask_seed(copied, RUN),
        lambda: north.seal(b"text", copied, RUN),
        lambda: north.open(bytes(20), copied, RUN),
    ):
        with pytest.raises(MessageError, match="key of another client"):
            attempt()


def test_secrets_are_not_shown_pickled_or_copied(north: RoundKeys, south: RoundKeys) -> None:
    north.seal(b"text", south.public, RUN)
    private = [north.b, north.private_mask_key, north._share.private_bytes_raw()]
    for text in (repr(north), str(north), f"{north}", repr({"keys": north})):
        assert text.count("RoundKeys(") == 1 and repr(north.public) in text
        for secret in private:
            assert secret.hex() not in text and repr(secret)[2:-1] not in text
    for write in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        for value in (north, {"keys": north}) if write is not copy.copy else (north,):
            with pytest.raises(TypeError):
                write(value)
    assert not hasattr(north, "__dict__")


def test_the_domains_are_no_beginnings_of_each_other() -> None:
    domains = [value for name, value in vars(round_keys).items() if is_domain(name, value)]
    assert len(domains) == 4
    for first in domains:
        assert first.endswith(b"\0") and first.count(b"\0") == 1
        assert [other for other in domains if other.startswith(first)] == [first]


def is_domain(name: str, value: object) -> bool:
    return name.startswith("_") and isinstance(value, bytes) and value.startswith(b"hanse")
