"""Lets other machines reach of a SuperLink what nodes need, and nothing else.

A SuperLink has one port for all: its Fleet API, which asks nodes for their keys; its Control API,
by which runs are started and nodes registered; and its Runtime API, which is for its own programs.
The latter two ask nobody who they are (Flower 1.41), so they must answer this machine alone.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

Values = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Values]]
Send = Callable[[Values], Awaitable[None]]
App = Callable[[Values, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
SAID = b"other machines reach the Fleet API of this SuperLink alone\n"


def keep_to_fleet() -> None:
    """Let every ASGI server that this process starts from now on show others its Fleet API only."""
    import uvicorn  # comes with Flower, without which the rest of hanse works

    run = uvicorn.run

    def guarded(app: App, **settings: Any) -> None:
        run(fleet_only(app), **settings)

    uvicorn.run = guarded  # type: ignore[assignment]


def fleet_only(app: App) -> App:
    """An ASGI app that refuses what other machines ask of `app` outside of the Fleet API."""

    async def guarded(scope: Values, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_fleet(scope) or _is_from_here(scope):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": SAID})
        else:
            await send({"type": "websocket.close"})

    return guarded


def _is_fleet(scope: Values) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(FLEET)


def _is_from_here(scope: Values) -> bool:
    """Whether the other end of a connection is on this machine, as uvicorn knows it.

    What a proxy on this machine passes on in X-Forwarded-For is not.
    """
    (client, _), (server, _) = scope["client"] or ("", 0), scope["server"]
    with suppress(ValueError):  # what a proxy says need not be an address
        return client == server or ip_address(client).is_loopback
    return False
