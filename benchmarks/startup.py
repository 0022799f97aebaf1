"""Seconds until `hanse` answers, beside `python -c pass`: help pages, mistakes in an experiment.

Writes benchmarks/results/startup.json.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measured import clock, keep

REPEATS = 5
BASE = "python -c pass"
HANSE = (sys.executable, "-m", "hanse")
CASES = {
    "help": ("--help",),
    "help of kit": ("kit", "--help"),
    "no such command": ("nonsense",),
    "no such option": ("run", "--nonsense"),
    "no YAML": ("run", "text.yaml"),
    "wrong key": ("run", "key.yaml"),
    "no such part": ("run", "part.yaml"),
    "wrong value of a section's setting": ("run", "section.yaml"),
    "wrong value of a part's setting": ("run", "value.yaml"),
    "parts": ("parts",),
}
FILES = {
    "text.yaml": "name: [\n",
    "key.yaml": "name: a\nrouns: 3\n",
    "part.yaml": "name: a\nalgorithm: fedavgg\n",
    "section.yaml": "name: a\ntrain: {learning_rate: -1}\n",
    "value.yaml": "name: a\nalgorithm: {fedprox: {mu: -1}}\ndata: {path: movie-reviews}\n",
}


def main() -> None:
    """Measure all, taking turns, and keep medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        commands: dict[str, tuple[str, ...]] = {BASE: (sys.executable, "-c", "pass")}
        commands |= {what: (*HANSE, *words) for what, words in CASES.items()}
        seconds: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(REPEATS + 1):
            for what, command in commands.items():
                seconds[what].append(clock(partial(_run, command, folder)))
    base = seconds.pop(BASE)[1:]  # the first of each fills the disk's cache
    rows = [
        {
            "what": what,
            "command": " ".join(("hanse", *CASES[what])),
            "seconds": statistics.median(own[1:]),
            "times_python": statistics.median(
                mine / plain for mine, plain in zip(own[1:], base, strict=True)
            ),
        }
        for what, own in seconds.items()
    ]
    for row in rows:
        print(f"{row['what']:<36}{row['seconds']:6.2f} s  {row['times_python']:6.1f} times python")
    keep("startup", {"python_seconds": statistics.median(base), "rows": rows})


def _run(command: tuple[str, ...], folder: str) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, "COLUMNS": "100"})


if __name__ == "__main__":
    main()
