"""Flower's ServerApp, thin: it passes bytes between the federated loop and Flower's grid.

The loop runs in the process of `hanse server`, which outlives a SuperLink or a ServerApp that is
killed, and asks again in a new run of Flower's.
"""

import logging
import os
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from hanse.runtimes.flower_client import BYTES, DOOR, PART, content
from hanse.runtimes.frames import Line, call

PAUSE = 0.05  # seconds between two looks for replies
LOOK = 1.0  # seconds between two looks at which nodes are there

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


def passing(grid: Grid, line: Line) -> None:
    """Push what comes over the line, and send back the replies and which nodes there are."""
    asked: dict[str, int] = {}  # tickets by message
    nodes: list[int] | None = None
    due = 0.0
    while True:
        while line.waiting(PAUSE):
            head, body = line.receive()
            if head["do"] == "stop":
                return
            asked |= _pushed(grid, line, head, body)
        for reply in grid.pull_messages(list(asked)) if asked else ():
            ticket = asked.pop(reply.metadata.reply_to_message_id, None)
            if ticket is not None:
                _return(line, ticket, reply)
        if time.monotonic() >= due:
            due = time.monotonic() + LOOK
            found = sorted(grid.get_node_ids())
            if found != nodes:
                nodes = found
                line.send({"is": "nodes", "nodes": nodes})


def _pushed(grid: Grid, line: Line, head: dict[str, int], body: bytes) -> dict[str, int]:
    """Push one message; its ticket by Flower's name for it."""
    content = RecordDict({PART: ConfigRecord({BYTES: body})})
    message = Message(content, dst_node_id=head["node"], message_type="query.ask")
    for name in grid.push_messages([message]):
        if name:
            return {name: head["ticket"]}
    line.send({"is": "failed", "ticket": head["ticket"], "why": "the SuperLink took it not"})
    return {}


def _return(line: Line, ticket: int, reply: Message) -> None:
    if reply.has_error():
        line.send({"is": "failed", "ticket": ticket, "why": str(reply.error.reason)})
    else:
        line.send({"is": "reply", "ticket": ticket}, content(reply))
