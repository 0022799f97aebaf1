"""What a run was made on: with other data, threads or versions, resume is not bit-identical."""

import contextlib
import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hanse import atomic_files
from hanse.errors import UserError

log = logging.getLogger(__name__)

FILE = "machine.json"


def note(
    folder: Path,
    data: str,
    speed: Mapping[str, float] | None = None,
    precision: Mapping[str, Mapping[str, bool]] | None = None,
) -> None:
    """Write down this machine's threads and versions, and the data's hash, in a run folder.

    speed: what was measured of the machine, for the report; resume does not ask for it.
    precision: how each model computes.
    """
    noted = {**_facts(), "data": data, **(speed or {}), "precision": precision or {}}
    atomic_files.write(folder / FILE, json.dumps(noted, indent=2).encode())


def follow(folder: Path) -> dict[str, Any]:
    """Use as many threads as the run did, and warn if anything else is different.

    What the run noted of how its models compute; nothing if it did not.
    """
    noted, here = _noted(folder), _facts()
    threads = noted.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    for name in sorted(here.keys() & noted.keys() - {"threads"}):
        if noted[name] != here[name]:
            log.warning(
                "the run was made with %s %s, this is %s: it goes on, but not bit for bit",
                *(name, noted[name], here[name]),
            )
    precision = noted.get("precision")
    return precision if isinstance(precision, dict) else {}


def same_data(folder: Path, data: str) -> None:
    """Raise UserError if the data are not those of the run: its test rows may be trained on."""
    if _noted(folder).get("data", data) != data:
        raise UserError(
            f"the data have changed since {folder} was begun, so they would be divided otherwise; "
            "bring them back, or begin a new run."
        )


def gpu() -> dict[str, float]:
    """The most bytes that torch has held on the GPU, and the share of time that the GPU is at work.

    Empty without a GPU; without the share if nothing here can tell it.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    found = {"gpu_memory": float(torch.cuda.max_memory_allocated())}
    # Torch asks the driver through a package that need not be there, for a figure that not every
    # GPU gives; whichever error that is, it must not stop a run.
    with contextlib.suppress(Exception):
        found["gpu_use"] = torch.cuda.utilization() / 100
    return found


def _noted(folder: Path) -> dict[str, Any]:
    """What was written down; nothing if the run was killed before, or the file is damaged.

    Raises UserError if the system refuses to read it: the data's hash would go unchecked.
    """
    try:
        noted = json.loads(atomic_files.read(folder / FILE) or b"")
    except (ValueError, RecursionError):
        noted = None
    if not isinstance(noted, dict):
        log.warning("%s cannot be read: whether all is as it was is not known", folder / FILE)
        return {}
    return noted


def _facts() -> dict[str, str | int]:
    libraries = ("torch", "transformers", "peft")
    return {
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
