"""Flower's ClientApp, thin: it hands a message to the resident worker, and its answer back.

Flower starts a process for every message. This one knows neither torch nor a model; what was sent
and what is answered are bytes to it.
"""

import os

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hanse.deployment.sockets import call

DOOR = "HANSE_DOOR"  # in the environment: the path of the worker's socket
PART, BYTES = "hanse", "bytes"  # where in a message its bytes are

app = ClientApp()


def content(message: Message) -> bytes:
    """The bytes in a message of ours."""
    found = message.content.config_records[PART][BYTES]
    if not isinstance(found, bytes):
        raise TypeError(f"a message holds {type(found).__name__} instead of bytes")
    return found


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    """Let the worker answer."""
    line = call(os.environ[DOOR])
    try:
        line.send({}, content(message))
        _, answer = line.receive()
    finally:
        line.close()
    return Message(RecordDict({PART: ConfigRecord({BYTES: answer})}), reply_to=message)
