"""Does federation pay on film reviews? experiments/baselines.yaml over three seeds.

All variants have the federation's rounds, and so as many resets of the optimizer. A seed takes two
cores about a quarter of an hour, so three seeds do not fit into 40 minutes: stop it with Ctrl-C and
call it again. A comparison that was stopped goes on; its finished runs are not repeated.
Writes benchmarks/results/baselines.json.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from measured import keep

from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.simulation.baselines import runs

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Run or go on with the baseline comparison, keep its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmark-baselines")
    parser.add_argument("settings", nargs="*", help="settings to change, such as rounds=4")
    chosen = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    words = [*chosen.settings, f"output_dir={chosen.folder}"]
    if chosen.folder.exists():
        runs.resume(chosen.folder)
    else:
        runs.run(load(ROOT / "experiments" / "baselines.yaml", words), chosen.seeds)
    figures = json.loads((chosen.folder / "baselines.json").read_text(encoding="utf-8"))
    print(figures["verdict"])
    print(keep("baselines", {**figures, "minutes": minutes(chosen.folder, figures)}))


def minutes(folder: Path, figures: dict[str, Any]) -> float:
    """How long the runs took in all, however often they were interrupted."""
    done = [outcome["run"] for variant in figures["variants"] for outcome in variant["seeds"]]
    rounds = [record for run in done for record in run_folder.read_rounds(folder / run)]
    return sum(sum(record.seconds.values()) for record in rounds) / 60


if __name__ == "__main__":
    main()
