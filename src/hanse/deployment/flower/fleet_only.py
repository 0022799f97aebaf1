"""Lets other machines reach of a SuperLink what nodes need, and nothing else.

A SuperLink has one port for all: its Fleet API, which asks nodes for their keys; its Control API,
by which runs are started and nodes registered; and its Runtime API, which is for its own programs.
The latter two ask nobody who they are (Flower 1.41), so they must answer this machine alone.

No page in a browser is answered, on this machine either: it could ask in the name of somebody who
looks at it there.

Flower asks for a node's key when it has read what the node sends, however much that is. So who it
is, and how much it sends, is looked at here before.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from hanse.deployment.flower.launcher import KEYLESS, LARGEST, MOST

Values = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Values]]
Send = Callable[[Values], Awaitable[None]]
App = Callable[[Values, Receive, Send], Awaitable[None]]
Headers = Mapping[bytes, bytes]
Known = Callable[[Headers], bool]

FLEET = "/v1/fleet/"
BROWSERS = (b"origin", b"sec-fetch-site")  # headers that pages cannot leave out, and nodes lack
TAKEN, GONE = 200, 499  # the latter is nobody's to hear
SAID = {
    401: b"this SuperLink takes what nodes that it knows have signed, and nothing else\n",
    403: b"other machines reach the Fleet API of this SuperLink alone, and browsers nothing\n",
    413: b"this is longer than anything that is asked of a node\n",
}


def keep_to_fleet() -> None:
    """Let every ASGI server that this process starts from now on be guarded."""
    # Both come with Flower, without which the rest of hanse works.
    import uvicorn

    from hanse.deployment.flower.known_nodes import registered

    run = uvicorn.run

    def guarded(app: Any, **settings: Any) -> None:
        known = (lambda headers: True) if os.environ.get(KEYLESS) else registered(app)
        run(fleet_only(app, known, int(os.environ.get(LARGEST, MOST))), **settings)

    uvicorn.run = guarded


def fleet_only(app: App, known: Known, most: int) -> App:
    """An ASGI app that hands on to `app` what may be asked of it.

    From other machines that is the Fleet API. What goes there must be of a node that is known by
    its headers, and have at most so many bytes; else its body is not read, or no further.
    """

    async def guarded(scope: Values, receive: Receive, send: Send) -> None:
        if not {name for name, _ in scope.get("headers", ())}.isdisjoint(BROWSERS):
            await _close(scope, send)
        elif scope["type"] == "http" and str(scope["path"]).startswith(FLEET):
            code, body = await _taken(scope, receive, known, most)
            if code == TAKEN:
                await app(scope, _again(body, receive), send)
            elif code != GONE:
                await _refuse(send, code)
        elif scope["type"] == "lifespan" or _is_from_here(scope):
            await app(scope, receive, send)
        else:
            await _close(scope, send)

    return guarded


async def _close(scope: Values, send: Send) -> None:
    if scope["type"] == "http":
        await _refuse(send, 403)
    else:
        await send({"type": "websocket.close"})


async def _taken(
    scope: Values, receive: Receive, known: Known, most: int
) -> tuple[int, list[bytes]]:
    """Whether a request may be handed on, as HTTP says it, and its body."""
    headers = dict(scope["headers"])
    if not await asyncio.to_thread(known, headers):
        return 401, []
    body, size, more = [], int(headers.get(b"content-length", 0)), True
    if size > most:
        return 413, []
    size = 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return GONE, []
        body.append(message.get("body", b""))
        size, more = size + len(body[-1]), message.get("more_body", False)
        if size > most:
            return 413, []
    return TAKEN, body


def _again(body: list[bytes], receive: Receive) -> Receive:
    """Gives a body that was read, and then what else comes."""

    async def given() -> Values:
        if not body:
            return await receive()
        part = body.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(body)}

    return given


async def _refuse(send: Send, code: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": SAID[code]})


def _is_from_here(scope: Values) -> bool:
    """Whether the other end of a connection is on this machine, as uvicorn knows it.

    What a proxy on this machine passes on in X-Forwarded-For is not.
    """
    (client, _), (server, _) = scope["client"] or ("", 0), scope["server"]
    with suppress(ValueError):  # what a proxy says need not be an address
        return client == server or ip_address(client).is_loopback
    return False
