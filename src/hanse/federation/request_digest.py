"""Digests of requests: clients compare them to see that all were sent the same.

They cover the parts of a request that are the same for all clients: its kind and round, the
instruction with its numbers, the server's state of the transforms, and the hashes of the adapter's
constants and of the run's files. What is a single client's own is left out: the last counted round,
the aggregator's note, and constants that are sent to a client that lacks them.
"""

import hashlib
import json

from hanse.federation.messages import Request
from hanse.tensors.named import digest, shapes
from hanse.tensors.serialization import Groups


def request_layout(request: Request) -> str:
    """SHA-256 in hex of the names, shapes and dtypes of a request's tensors."""
    groups = sorted(_groups(request).items())
    described = [(group, *tensor) for group, tensors in groups for tensor in shapes(tensors)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def request_digest(request: Request) -> bytes:
    """SHA-256 (32 bytes) of a request's common parts, the same at the server and at a client."""
    groups = _groups(request)
    numbers = {name: float(value) for name, value in request.instruction.numbers.items()}
    content = [
        *(request.kind, request.round, request_layout(request)),
        *(sorted(numbers.items()), sorted(groups), request.constants),
        *(digest(tensors) for _, tensors in sorted(groups.items())),
        *sorted(request.files.items()),
    ]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _groups(request: Request) -> Groups:
    # A codec without state adds an empty group, which clients with other codecs do not have.
    states = {place: state for place, state in request.transform_states.items() if state}
    return {"instruction": request.instruction.tensors, **states}
