"""One name for a request in all logs: run, round, client and kind, such as 3fa9c1e2/7/north/train.

The server and the client each make it from what they know anyway, so it does not travel. A request
that is sent again keeps its name. It is no secret.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

SIMULATED = "local"  # in place of a run's name, where all clients are in the server's process
RUN_LENGTH = 8  # characters of a run's name

OWN_KINDS = frozenset({"prepare", "train", "agree", "agreed", "evaluate"})  # the framework's

events = logging.getLogger("hanse.requests")
events.setLevel(logging.WARNING)  # a log file lowers it; consoles are not told
events.propagate = False

_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id(run: str, round: int, client: str, kind: str) -> str:
    """The name of a request."""
    return f"{run[:RUN_LENGTH]}/{round}/{client}/{kind}"


def purpose(kind: str) -> str:
    """The purpose of a kind of request; one that is not the framework's is a rule's own phase."""
    return f"to {kind}" if kind in OWN_KINDS else f"for the phase {kind}"


def current_request() -> str:
    """The name of the request that is being answered; empty if none is."""
    return _current.get()


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Let everything that is logged in the block name this request."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def log_fields(event: str, request: str = "") -> dict[str, Any]:
    """The `extra` of a log line: the event in one word, and the request that it concerns."""
    if not request:
        return {"event": event}
    _, round, client, _ = request.split("/", 3)
    return {"event": event, "request_id": request, "round": int(round), "silo": client}


def log_event(event: str, message: str, *arguments: object, request: str = "") -> None:
    """Write what has happened to a request into the log file.

    event: in one word, such as sent, received, trained.
    request: its name; by default the one that is being answered.
    """
    events.info(message, *arguments, extra=log_fields(event, request or current_request()))
