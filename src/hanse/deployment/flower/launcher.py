"""Starts one of Flower's programs, as a child that neither outlives nor deceives us.

Flower's programs start each other by name. The folder of names that hanse gives them (see
flower_home) leads here: so every one of them dies with the process that started it, by the
kernel's hand, however that one was killed; and the one that runs what a SuperLink sends installs
nothing but the app that this machine has already.
"""

import ctypes
import os
import signal
import sys
from importlib.metadata import entry_points
from typing import Any

PARENT = "HANSE_PARENT"  # in the environment of what hanse starts itself: the process that did
APPS = "HANSE_APPS"  # in the environment: the folder of apps, in which nothing new may appear
LARGEST = "HANSE_LARGEST"  # in the environment: the bytes that a node may send at once
KEYLESS = "HANSE_KEYLESS"  # in the environment, if nodes have no keys: on one machine alone
MOST = 64 * 2**20  # bytes that a node may send, if the environment says nothing
SERVER, NODE = "flower-superlink", "flower-supernode"  # those that hanse starts itself
EXECUTOR, SERVERAPP, CLIENT = "flower-superexec", "flwr-serverapp", "flwr-clientapp"
RUN_APPS = SERVERAPP, CLIENT  # those that run an app, which comes over the SuperLink
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def main() -> None:
    """Run the program that the first word names, with the other words."""
    name = sys.argv[1]
    die_with_parent()
    if name in RUN_APPS:
        refuse_apps(os.environ[APPS])
    [program] = entry_points(group="console_scripts", name=name)
    sys.argv = [name, *sys.argv[2:]]
    program.load()()


def die_with_parent(parent: int | None = None) -> None:
    """Be killed when the parent ends; where there is no such call, Flower's own watch must do.

    parent: who it is; if that has ended already, so does this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent not in (None, os.getppid()):
        os._exit(1)


def name_process(name: str) -> None:
    """Let process lists show a name, as far as it has room: what is forked looks alike there."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


def refuse_apps(folder: str) -> None:
    """Let no app that is sent get into a folder: Python asks here before it makes a folder."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and os.fspath(arguments[0]).startswith(folder):
            raise PermissionError(
                "a Flower app came that is not the one of the hanse installed here; nothing of it "
                "was run: use the same version of hanse on both sides"
            )

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
