"""Does a silo hold to the memory that `hanse plan` expects of it?

The quickstart's experiment is planned for some sizes of memory. Two silos of each plan, that with
most rows and that with fewest, then train for a round, each in a process of its own, whose peak
stands beside the memory that was expected. A size that holds no setting at all is refused before
anything is trained. Loading is the peak before training: libraries, rows, and model. Seconds are
those of planning. Takes about ten minutes on two cores.
Writes benchmarks/results/planned_memory.json.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import many_runs  # noqa: F401  one thread, before torch is imported
from measured import ROOT, keep
from scale import alone

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.observability.memory import peak_memory, release, reset_peak
from hanse.planning.fedpipe import plan as planning
from hanse.planning.fedpipe.planned import Bounds
from hanse.planning.fedpipe.silo_settings import overridden

EXPERIMENT = ROOT / "experiments" / "quickstart.yaml"
SIZES = (1.0, 1.5, 2.0)  # GB


def planned(gigabytes: float) -> dict[str, Any]:
    """Plan for this memory at all silos; what the plan says, with the settings of each silo."""
    start = time.perf_counter()
    try:
        plan = planning.plan(load(EXPERIMENT), Bounds(memory={"": 1e9 * gigabytes}))
    except UserError as error:
        return {"refused": str(error)}
    by_rows = sorted(plan.silos, key=lambda own: own.silo.rows)
    model = _words({"model": plan.model})
    return {
        "seconds": time.perf_counter() - start,
        "silos": {
            own.silo.name: {
                "form": own.form.name,
                "matrices": len(own.ranks),
                "ranks": sum(own.ranks.values()),
                "expected": own.memory,
                "settings": [*model, *_words(overridden(own, plan))],
            }
            for own in (by_rows[0], by_rows[-1])
        },
    }


def _words(settings: Mapping[str, Any]) -> list[str]:
    """The settings of a silo as those of the whole experiment."""
    parts = {part: settings.get(part, {}) for part in ("train", "model")}
    parts["adapter.lora"] = settings.get("adapter", {}).get("lora", {})
    return [
        f"{part}.{key}={json.dumps(value)}"
        for part, own in parts.items()
        for key, value in own.items()
    ]


def trained(name: str, settings: list[str]) -> tuple[int, int]:
    """The peaks of this process while it loads, and while one silo trains with these settings."""
    client = simulate(load(EXPERIMENT, settings)).clients[name]
    loading = peak_memory()
    release()
    if not reset_peak():
        raise SystemExit("this system does not tell the peak of a part of a process")
    client.learner.fit()
    return loading, peak_memory()


def main() -> None:
    """Plan and run for each size, print a line for each, keep them."""
    rows: dict[str, dict[str, Any]] = {}
    for size in SIZES[2:3] if "--short" in sys.argv else SIZES:
        row = rows[f"{size:g}"] = alone(planned, size)
        for name, own in row.get("silos", {}).items():
            own["loading"], own["peak"] = alone(trained, name, own.pop("settings"))
            own["expected_over_peak"] = own["expected"] / own["peak"]
        print(f"{size:g} GB: {row}", flush=True)
    keep("planned_memory", {"rows": rows})


if __name__ == "__main__":
    main()
