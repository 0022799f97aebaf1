"""Notes each attempt of this process to reach another machine, or to ask for a name's address.

Python imports this at its start when the folder is on PYTHONPATH, so that every child that is
Python has it, too. A line of the file that TRIPWIRE names is an attempt; nothing is prevented.
"""

import json
import os
import sys
from ipaddress import ip_address

CONNECTIONS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


def _is_here(host: object) -> bool:
    """Whether this is a name or an address of this machine alone."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_numeric(host: object) -> bool:
    """Whether no name server is asked for this."""
    try:
        ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in CONNECTIONS:
        address = arguments[1]  # of a socket of this machine, text; of a sending without one, None
        if not isinstance(address, tuple) or not isinstance(address[0], str | bytes):
            return
        host = address[0]
        if _is_here(host):
            return
    elif event in NAMES:
        host = arguments[0]
        if _is_here(host) or (_is_numeric(host) and event != "socket.gethostbyaddr"):
            return
    else:
        return
    line = json.dumps([os.getpid(), sys.argv[:3], event, str(host)]) + "\n"
    file = os.open(os.environ["TRIPWIRE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)


if "TRIPWIRE" in os.environ:
    sys.addaudithook(_hear)
