"""Does a silo hold to the memory that `hanse plan` expects of it?

The quickstart's experiment is planned for some sizes of memory, and each plan runs for a round in a
process of its own, whose peak stands beside the memory that the plan expects of its largest silo.
A size that holds no setting at all is refused before anything runs. Seconds are those of planning.
Takes about ten minutes on two cores. Writes benchmarks/results/planned_memory.json.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import many_runs  # noqa: F401  one thread, before torch is imported
from measured import ROOT, keep
from scale import alone

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.planning.fedpipe import plan as planning
from hanse.planning.fedpipe import plan_page
from hanse.planning.fedpipe.planned import Bounds

EXPERIMENT = ROOT / "experiments" / "quickstart.yaml"
SIZES = (0.5, 1.5, 2.0, 2.5, 3.0, 4.0)  # GB
ROUND = ("rounds=1", "clients_per_pass=off", "evaluation.test=false", "evaluation.clients=false")
UNSCORED = "evaluation.validate_every=0"


def planned(gigabytes: float, file: Path) -> dict[str, Any]:
    """Plan for this memory at all silos, and write the planned experiment; what the plan says."""
    start = time.perf_counter()
    try:
        plan = planning.plan(load(EXPERIMENT), Bounds(memory={"": 1e9 * gigabytes}))
    except UserError as error:
        return {"refused": str(error)}
    file.write_text(plan_page.page(EXPERIMENT, plan, anew=True))
    largest = max(plan.silos, key=lambda own: own.memory)
    return {
        "seconds": time.perf_counter() - start,
        "expected": largest.memory,
        "form": largest.form.name,
        "ranks": sum(largest.ranks.values()),
        "matrices": len(largest.ranks),
    }


def peak(file: Path) -> int:
    """The most bytes that `hanse run` holds while it trains all silos of a file for a round."""
    words = *ROUND, UNSCORED, f"output_dir={file.with_suffix('')}"
    command = [sys.executable, "-m", "hanse", "run", str(file), *words]
    with file.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(file.with_suffix(".log").read_text(errors="replace"))
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Plan and run for each size, print a line for each, keep them."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="hanse-planned-memory-") as folder:
        for size in SIZES[2:3] if "--short" in sys.argv else SIZES:
            file = Path(folder) / f"planned-{size:g}.yaml"
            row = rows[f"{size:g}"] = alone(planned, size, file)
            if "expected" in row:
                row["peak"] = peak(file)
                row["expected_over_peak"] = row["expected"] / row["peak"]
            print(f"{size:g} GB: {row}", flush=True)
    keep("planned_memory", {"rows": rows})


if __name__ == "__main__":
    main()
