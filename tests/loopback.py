"""Runs a command in a network namespace that has nothing but loopback (Linux, as root).

Such a namespace counts what finds no way out of it, whichever language asked.
"""

import ctypes
import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def command(noted: Path) -> list[str]:
    """The words before those of a command that is to run there; its process is noted in a file."""
    return [sys.executable, "-S", "-s", __file__, str(noted)]


def refused() -> str:
    """Why this machine cannot do it; empty if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    done = subprocess.run([*command(Path(os.devnull)), "/bin/true"], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def lost(noted: Path) -> int:
    """How many packets and connections of that namespace found no way out."""
    home = Path(f"/proc/{noted.read_text()}/net")
    names, values = re.findall(r"^Ip: (.*)", (home / "snmp").read_text(), re.MULTILINE)
    found = int(dict(zip(names.split(), values.split(), strict=True))["OutNoRoutes"])
    newer = home / "snmp6"
    six = re.search(r"^Ip6OutNoRoutes\s+(\d+)", newer.read_text() if newer.exists() else "", re.M)
    return found + (int(six[1]) if six else 0)


def main(words: Sequence[str]) -> None:
    """Enter a new namespace, and become a command."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    Path(words[0]).write_text(str(os.getpid()))
    os.execv(words[1], words[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
