"""The precision of a silo's models in one run, kept so that a restarted silo goes on bit for bit.

The server gives that of the trained model. A silo measures it for the others, and a measurement may
come out otherwise the next time.
"""

import json
from dataclasses import asdict
from pathlib import Path

from hanse import atomic_files
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.learners.models.precision import compute_modes_from_json
from hanse.tensors import json_text

FILE = "precision.json"  # in the folder of a run in a silo's state


def follow(folder: Path, experiment: Experiment, given: str, resources: Resources) -> None:
    """Let the models compute as they did in this run before, and as the server says.

    given: the compute mode of the trained model as JSON; empty if the server gives none.
    """
    modes = _parsed(atomic_files.read(folder / FILE) or b"")
    if given:
        modes[experiment.model.compute_mode_key] = _parsed(given.encode())
    resources.compute_modes |= compute_modes_from_json(modes)


def note(folder: Path, experiment: Experiment, resources: Resources) -> None:
    """Write down how the models of a run compute, unless it is written already."""
    if (folder / FILE).exists():
        return
    keys = {model.compute_mode_key for model in (experiment.model, *experiment.models.values())}
    modes = {key: asdict(resources.compute_modes[key]) for key in sorted(keys)}
    atomic_files.write(folder / FILE, json.dumps(modes).encode(), private=True)


def _parsed(text: bytes) -> dict[str, object]:
    """The values of a JSON text; empty if it cannot be read."""
    try:
        values = json_text.parse(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
