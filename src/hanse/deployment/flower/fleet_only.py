"""A guard before a SuperLink: other machines reach its Fleet API only, and browsers nothing.

A SuperLink has one port for three APIs: the Fleet API, which authenticates nodes by their keys; the
Control API, by which runs are started and nodes registered; and the Runtime API for its own
programs. The latter two authenticate nobody (Flower 1.41), so they must answer this machine only.

Requests of browsers are refused on this machine, too: a web page could send them in the name of
the user who opened it.

Flower checks a node's key only after it has read the whole request, whatever its size. The guard
checks key and size before that.
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
TAKEN, GONE = 200, 499  # a request whose sender is gone gets no answer
REFUSALS = {
    401: b"this SuperLink takes what nodes that it knows have signed, and nothing else\n",
    403: b"other machines reach the Fleet API of this SuperLink alone, and browsers nothing\n",
    413: b"this is longer than anything that is asked of a node\n",
}


def keep_to_fleet() -> None:
    """Guard every ASGI server that this process starts from now on."""
    # Both packages come with Flower, and the rest of hanse works without it.
    import uvicorn

    from hanse.deployment.flower.known_nodes import registered

    run = uvicorn.run

    def guarded(app: Any, **settings: Any) -> None:
        known = (lambda headers: True) if os.environ.get(KEYLESS) else registered(app)
        run(fleet_only(app, known, int(os.environ.get(LARGEST, MOST))), **settings)

    uvicorn.run = guarded


def fleet_only(app: App, known: Known, most: int) -> App:
    """An ASGI app that passes allowed requests on to `app`.

    From other machines only the Fleet API is allowed. A request to it must come from a node that
    is known by its headers, and have at most `most` bytes; else its body is not read any further.
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
    """The status of a request, TAKEN if it may be passed on, and the parts of its body."""
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
    """A receiver that repeats a body that was read, and then receives as before."""

    async def repeated() -> Values:
        if not body:
            return await receive()
        part = body.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(body)}

    return repeated


async def _refuse(send: Send, code: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSALS[code]})


def _is_from_here(scope: Values) -> bool:
    """Return true if the other end of a connection is on this machine, as uvicorn knows it.

    A request that a proxy on this machine passes on, with X-Forwarded-For, does not count.
    """
    (client, _), (server, _) = scope["client"] or ("", 0), scope["server"]
    with suppress(ValueError):  # a proxy may have written something else than an address
        return client == server or ip_address(client).is_loopback
    return False
