"""Runs the long tests of federations under faults (`make chaos`), and keeps their figures.

Links that come late, break and cut off; a server killed at 30 of its writes; a server that stands
still for a minute, or is away; silos that die and stall; random faults by seed. A test fails if a
round is lost, an update counts twice, or the adapter differs in a bit from that of a run without
faults. Writes benchmarks/results/chaos.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import ROOT, keep


def main() -> None:
    """Run the tests, and keep what they measured once all have passed."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "figures.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "chaos", "-rs", *sys.argv[1:]],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CHAOS_FIGURES": str(lines)},
        )
        if done.returncode:
            sys.exit(done.returncode)
        keep("chaos", {"tests": [json.loads(line) for line in lines.read_text().splitlines()]})


if __name__ == "__main__":
    main()
