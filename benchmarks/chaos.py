"""Runs the long tests of federations under faults (`make chaos`), and keeps their figures.

Links that come late, break and cut off; a server killed at 30 of its writes; a server that stands
still for a minute, or is away; silos that die and stall; random faults by seed. A test fails if a
round is lost, an update counts twice, or the adapter differs in a bit from that of a run without
faults. Writes benchmarks/results/chaos.json. Words are passed on to pytest, such as a file of these
tests; the figures of the other ones are kept.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import ROOT, keep, results

TESTS = "tests/end_to_end"


def main() -> None:
    """Run the tests, and keep what they measured once all have passed."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "figures.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "chaos", "-rs", *(sys.argv[1:] or [TESTS])],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CHAOS_FIGURES": str(lines)},
        )
        if done.returncode:
            sys.exit(done.returncode)
        keep("chaos", {"tests": _rows(lines.read_text().splitlines())})


def _rows(lines: Sequence[str]) -> list[dict[str, Any]]:
    """What was measured now, and what other tests of these have measured before."""
    command = shlex.join(["python", "benchmarks/chaos.py", *sys.argv[1:]])
    file = results("chaos")
    before = json.loads(file.read_text())["tests"] if file.exists() else []
    rows = {row["what"]: row for row in before}
    rows |= {row["what"]: {**row, "command": command} for row in map(json.loads, lines)}
    return list(rows.values())


if __name__ == "__main__":
    main()
