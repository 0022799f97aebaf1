"""What a run was made on: without the same threads and versions, resume is not bit-identical."""

import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from hanse import storage

log = logging.getLogger(__name__)

FILE = "machine.json"


def note(folder: Path) -> None:
    """Write down this machine's threads and versions in a run folder."""
    storage.write(folder / FILE, json.dumps(_facts(), indent=2).encode())


def follow(folder: Path) -> None:
    """Use as many threads as the run did, and warn if anything else is different."""
    try:
        noted = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # killed before it was written: nothing was trained yet
        return
    torch.set_num_threads(int(noted.get("threads", torch.get_num_threads())))
    here = _facts()
    for name in noted.keys() & here.keys():
        if noted[name] != here[name]:
            log.warning(
                "the run was made with %s %s, this is %s: it goes on, but not bit for bit",
                *(name, noted[name], here[name]),
            )


def _facts() -> dict[str, str | int]:
    libraries = ("torch", "transformers", "peft")
    return {
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
