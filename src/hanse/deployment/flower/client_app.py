"""Flower's ClientApp: it passes each message to the silo's worker, and the answer back.

Flower starts a process for every message. This one imports neither torch nor a model; messages
and answers are bytes to it.
"""

import os

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hanse.deployment.sockets import connect

SOCKET = "HANSE_SOCKET"  # in the environment: the path of the worker's socket
PART, BYTES = "hanse", "bytes"  # the record of a message that holds its bytes, and their key

app = ClientApp()


def content(message: Message) -> bytes:
    """The bytes in a message of ours."""
    data = message.content.config_records[PART][BYTES]
    if not isinstance(data, bytes):
        raise TypeError(f"a message holds {type(data).__name__} instead of bytes")
    return data


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    """Pass a message to the worker, and return its answer."""
    connection = connect(os.environ[SOCKET])
    try:
        connection.send({}, content(message))
        _, answer = connection.receive()
    finally:
        connection.close()
    return Message(RecordDict({PART: ConfigRecord({BYTES: answer})}), reply_to=message)
