"""Federated fine-tuning of large language models.

    import hanse

    run = hanse.run("experiment.yaml", rounds=3)
    run.metrics[-1]["test_accuracy"]

docs/python.md describes all of it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse.api import Run as Run
    from hanse.api import load_run as load_run
    from hanse.api import run as run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_run", "run"]

# Nothing phones home: set before any library that would reads it.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def __getattr__(name: str) -> Any:
    """Import the Python API when something of it is first used."""
    if name in ("Run", "load_run", "run"):
        return getattr(import_module("hanse.api"), name)
    raise AttributeError(f"module 'hanse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
