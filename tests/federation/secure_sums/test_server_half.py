"""The server's half of a secure sum: keys that only dishonest clients accept."""

from unittest.mock import Mock

import pytest

from federation.secure_sums.parties import GRID, NAMES, PLAN, part
from hanse.errors import UserError
from hanse.federation.secure_sums.server_half import Collection
from hanse.federation.secure_sums.statements import Advertisement
from hanse.security.round_keys import PublicKeys


def test_a_mask_that_cannot_be_removed_is_said() -> None:
    exchange = Mock(profiles=dict.fromkeys(NAMES), participants=NAMES, summed=None, required=1)
    collection = Collection(exchange, PLAN, GRID, 1, 60.0)
    own, other = part("a").keys, part("b").keys
    keys = {"a": own.public, "b": other.public, "c": PublicKeys(bytes(32), bytes(32), bytes(32))}
    collection.advertised = {n: Advertisement(1, known, bytes(64)) for n, known in keys.items()}
    expected = other.mask_seed(own.public, b"mask of a pair\0" + b"1\0a\0b")
    assert collection._pair_seed(own.private_mask_key, "a", "b") == expected
    for peer, reason in (("c", "no secret can rest"), ("a", "as its own")):
        with pytest.raises(UserError, match=rf"between a and {peer} cannot be removed.* {reason}"):
            collection._pair_seed(own.private_mask_key, "a", peer)
