"""Flower's ClientApp, thin: it hands a message to the resident worker, and its answer back.

Flower starts a process for every message. This one knows neither torch nor a model; what was sent
and what is answered are bytes to it.
"""

import os

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hanse.runtimes.frames import call

DOOR = "HANSE_DOOR"  # in the environment: the path of the worker's socket
PART, BYTES = "hanse", "bytes"  # where in a message its bytes are

app = ClientApp()


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    """Let the worker answer."""
    line = call(os.environ[DOOR])
    try:
        record = message.content[PART]
        line.send({}, record[BYTES])
        _, answer = line.receive()
    finally:
        line.close()
    return Message(RecordDict({PART: ConfigRecord({BYTES: answer})}), reply_to=message)
