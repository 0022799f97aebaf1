"""Recognize requests of registered nodes by their headers, before the body is read.

The rules are those of Flower's own middleware. That applies them again once it has read the whole
request, and compares the key with the node that the request names.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

Headers = Mapping[bytes, bytes]

KEY, SIGNATURE, TIME = (
    name.encode()
    for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
)
OLDEST = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE  # seconds since a request was signed


def registered(superlink: Any) -> Callable[[Headers], bool]:
    """A check: headers must be signed recently by a key that is registered at the SuperLink."""

    def known(headers: Headers) -> bool:
        try:
            key = b64decode(headers[KEY], validate=True)
            nodes = superlink.state.linkstate_factory.state()
            if nodes.get_node_id_by_public_key(key) is None:
                return False
            age = (now() - datetime.fromisoformat(headers[TIME].decode("ascii"))).total_seconds()
            if not -SYSTEM_TIME_TOLERANCE < age < OLDEST:
                return False
            signature = b64decode(headers[SIGNATURE], validate=True)
            return verify_signature(bytes_to_public_key(key), headers[TIME], signature)
        except (KeyError, ValueError, TypeError):  # a header is missing or malformed
            return False

    return known
