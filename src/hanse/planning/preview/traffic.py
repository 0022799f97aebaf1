"""The bytes of a round's messages, computed from the names and shapes of their tensors."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from hanse.federation.messages import Reply
from hanse.federation.round import RoundExchange


@dataclass(frozen=True)
class Traffic:
    """The bytes of a round's request to a client, and of its reply."""

    down: int
    up: int


def round_traffic(exchange: RoundExchange, replies: Mapping[str, Reply]) -> dict[str, Traffic]:
    """The bytes between each client and the server.

    replies: the form of each client's reply. Clients with the same settings share one.

    The size of a message depends on its names and shapes, and is computed once for all that share
    these.
    """
    sizes: dict[Hashable, Traffic] = {}
    by_client = {}
    for name, instruction in exchange.instructions.items():
        reply = replies[name]
        escaped_name = len(json.dumps(json.dumps(name)))
        kind = (id(reply), id(instruction.tensors), *instruction.numbers, escaped_name)
        if kind not in sizes:
            sizes[kind] = traffic(exchange, name, reply)
        by_client[name] = sizes[kind]
    return by_client


def traffic(exchange: RoundExchange, name: str, reply: Reply) -> Traffic:
    """The bytes of a round's request to a client, and of a reply from it in the form of `reply`."""
    answer = replace(reply, client=name)
    return Traffic(len(exchange.encoded("train", name).pack()), len(answer.pack()))


def constants_size(exchange: RoundExchange) -> int:
    """The bytes that the adapter's constants add to a request."""
    if not exchange.constants.digest:
        return 0
    request = exchange.encoded("train", next(iter(exchange.instructions)))
    return len(request.pack()) - len(replace(request, given={}).pack())
