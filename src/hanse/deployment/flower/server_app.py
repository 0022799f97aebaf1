"""Flower's ServerApp: it passes bytes between the federated loop and Flower's grid.

The loop runs in the process of `hanse server`. That process outlives a SuperLink or a ServerApp
that is killed, and sends its requests again in a new run of Flower's.
"""

import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from hanse.deployment.flower.client_app import BYTES, PART, SOCKET, content
from hanse.deployment.sockets import Connection, connect
from hanse.errors import cleaned

PAUSE = 0.05  # seconds between two looks for a message of the loop
# Seconds between two looks for one reply. A reply is announced before its bytes have arrived, and
# Flower then waits for a second, so that looking more often would take longer.
PULL = 0.4
PULLS = 20  # looks a second for all replies together: each look costs the SuperLink time
LOOK = 1.0  # seconds between two looks for the connected nodes
AT_ONCE = 8  # replies that are pulled at a time; each is in memory several times

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Pass messages until the federated loop has ended."""
    connection = connect(os.environ[SOCKET])
    try:
        pass_messages(grid, connection)
    except (EOFError, OSError):
        log.warning("the federated loop is gone")
    finally:
        connection.close()


@dataclass
class Pending:
    """A message that has no reply yet.

    name: Flower's name of the message. pull: the look for its reply that is under way.
    due: the time of the next look.
    """

    name: str
    ticket: int
    pull: Future[list[Message]] | None = None
    due: float = 0.0


def pass_messages(grid: Grid, connection: Connection) -> None:
    """Push the loop's messages, and send it the replies and the list of connected nodes."""
    pending: list[Pending] = []
    nodes: list[int] | None = None
    due = 0.0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            while connection.waiting(PAUSE):
                head, body = connection.receive()
                if head["do"] == "stop":
                    return
                pending += _push(grid, connection, head, body)
            pause = max(PULL, len(pending) / PULLS)
            pending = [
                message
                for message in pending
                if not _try_to_return(grid, connection, message, pause, pool)
            ]
            if time.monotonic() >= due:
                due = time.monotonic() + LOOK
                connected = sorted(grid.get_node_ids())
                if connected != nodes:
                    nodes = connected
                    connection.send({"is": "nodes", "nodes": nodes})


def _push(grid: Grid, connection: Connection, head: dict[str, int], body: bytes) -> list[Pending]:
    """Push one message; nothing is pending if the SuperLink does not take it."""
    content = RecordDict({PART: ConfigRecord({BYTES: body})})
    message = Message(content, dst_node_id=head["node"], message_type="query.ask")
    for name in grid.push_messages([message]):
        if name:
            return [Pending(name, head["ticket"], due=time.monotonic() + PULL)]
    reason = "the SuperLink did not accept the message"
    connection.send({"is": "failed", "ticket": head["ticket"], "why": reason})
    return []


def _try_to_return(
    grid: Grid, connection: Connection, message: Pending, pause: float, pool: ThreadPoolExecutor
) -> bool:
    """Look for the reply of a message when it is due; returns true once it was sent back."""
    if message.pull is None:
        if time.monotonic() >= message.due:
            message.pull = pool.submit(lambda: list(grid.pull_messages([message.name])))
        return False
    if not message.pull.done():
        return False
    replies, message.pull, message.due = message.pull.result(), None, time.monotonic() + pause
    for reply in replies:
        _return(connection, message.ticket, reply)
    return bool(replies)


def _return(connection: Connection, ticket: int, reply: Message) -> None:
    if reply.has_error():
        reason = cleaned(str(reply.error.reason))
        connection.send({"is": "failed", "ticket": ticket, "why": reason})
    else:
        connection.send({"is": "reply", "ticket": ticket}, content(reply))
