"""Flower's ServerApp, thin: it passes bytes between the federated loop and Flower's grid.

The loop runs in the process of `hanse server`, which outlives a SuperLink or a ServerApp that is
killed, and asks again in a new run of Flower's.
"""

import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from hanse.deployment.flower.client_app import BYTES, DOOR, PART, content
from hanse.deployment.sockets import Connection, call
from hanse.errors import cleaned

PAUSE = 0.05  # seconds between two looks at what the loop wants
# Seconds between two looks for one reply. A reply is seen before its bytes have arrived, and then
# Flower waits for a second; so looking more often would take longer.
PULL = 0.4
PULLS = 20  # looks a second, for however many replies: each takes the SuperLink's time
LOOK = 1.0  # seconds between two looks at which nodes are there
AT_ONCE = 8  # replies that are waited for at a time; each is in memory, several times over

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Pass messages until the loop has ended."""
    line = call(os.environ[DOOR])
    try:
        passing(grid, line)
    except (EOFError, OSError):
        log.warning("the federated loop is gone")
    finally:
        line.close()


@dataclass
class Asked:
    """One message that has no reply yet.

    pull: the look for it that is under way. due: when the next one is.
    """

    name: str
    ticket: int
    pull: Future[list[Message]] | None = None
    due: float = 0.0


def passing(grid: Grid, line: Connection) -> None:
    """Push what comes over the line, and send back the replies and which nodes there are."""
    asked: list[Asked] = []
    nodes: list[int] | None = None
    due = 0.0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            while line.waiting(PAUSE):
                head, body = line.receive()
                if head["do"] == "stop":
                    return
                asked += _pushed(grid, line, head, body)
            pause = max(PULL, len(asked) / PULLS)
            asked = [one for one in asked if not _returned(grid, line, one, pause, pool)]
            if time.monotonic() >= due:
                due = time.monotonic() + LOOK
                found = sorted(grid.get_node_ids())
                if found != nodes:
                    nodes = found
                    line.send({"is": "nodes", "nodes": nodes})


def _pushed(grid: Grid, line: Connection, head: dict[str, int], body: bytes) -> list[Asked]:
    """Push one message."""
    content = RecordDict({PART: ConfigRecord({BYTES: body})})
    message = Message(content, dst_node_id=head["node"], message_type="query.ask")
    for name in grid.push_messages([message]):
        if name:
            return [Asked(name, head["ticket"], due=time.monotonic() + PULL)]
    line.send({"is": "failed", "ticket": head["ticket"], "why": "the SuperLink took it not"})
    return []


def _returned(
    grid: Grid, line: Connection, asked: Asked, pause: float, pool: ThreadPoolExecutor
) -> bool:
    """Look for a reply when it is time to, again after a pause; whether it has been sent back."""
    if asked.pull is None:
        if time.monotonic() >= asked.due:
            asked.pull = pool.submit(lambda: list(grid.pull_messages([asked.name])))
        return False
    if not asked.pull.done():
        return False
    replies, asked.pull, asked.due = asked.pull.result(), None, time.monotonic() + pause
    for reply in replies:
        _return(line, asked.ticket, reply)
    return bool(replies)


def _return(line: Connection, ticket: int, reply: Message) -> None:
    if reply.has_error():
        line.send({"is": "failed", "ticket": ticket, "why": cleaned(str(reply.error.reason))})
    else:
        line.send({"is": "reply", "ticket": ticket}, content(reply))
