"""Starts one of Flower's programs so that it ends with its parent, and runs no foreign app.

Flower's programs start each other by name. Each name in the folder of programs that hanse gives
them (see `home`) leads here. The kernel then ends a program with the process that started it,
however that was killed; and a program that runs apps installs none but the one of this machine.
"""

import ctypes
import os
import signal
import sys
from importlib.metadata import entry_points
from typing import Any

# Environment variables.
PARENT = "HANSE_PARENT"  # the process that started a program, if hanse started it itself
APPS = "HANSE_APPS"  # the folder of apps, in which no new folder may be made
LARGEST = "HANSE_LARGEST"  # the bytes that a node may send in one request
KEYLESS = "HANSE_KEYLESS"  # set if nodes have no keys, which is allowed on one machine only

MOST = 64 * 2**20  # bytes that a node may send in one request, if LARGEST is not set
SERVER, NODE = "flower-superlink", "flower-supernode"  # the programs that hanse starts itself
EXECUTOR, SERVERAPP, CLIENT = "flower-superexec", "flwr-serverapp", "flwr-clientapp"
RUN_APPS = SERVERAPP, CLIENT  # the programs that run an app, which the SuperLink sends
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def main() -> None:
    """Run the program that the first argument names, with the other arguments."""
    name = sys.argv[1]
    die_with_parent()
    if name in RUN_APPS:
        refuse_apps(os.environ[APPS])
    [program] = entry_points(group="console_scripts", name=name)
    sys.argv = [name, *sys.argv[2:]]
    program.load()()


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent ends.

    Only Linux can; elsewhere Flower's own watch of the parent has to do.
    parent: the parent's process id; this process ends at once if another one is the parent now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent not in (None, os.getppid()):
        os._exit(1)


def name_process(name: str) -> None:
    """Show a name in process lists, 15 characters of it; forked processes look alike there."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


def refuse_apps(folder: str) -> None:
    """Refuse, by an audit hook, to make a folder in this one: no app that is sent is installed."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and os.fspath(arguments[0]).startswith(folder):
            raise PermissionError(
                "a Flower app came that is not the one of the hanse installed here; nothing of it "
                "was run: use the same version of hanse on both sides"
            )

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
