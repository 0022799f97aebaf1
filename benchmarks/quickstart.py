"""How much federation gains on held-out reviews: three seeds, 2,000 reviews each.

The experiment is the quickstart with more training (LONGER) than the demo's four minutes allow.
Every seed draws its own partition, adapter and batches; the test reviews are the same for all, and
no validation review is among them. The first seed is run again with products as transformers and
PEFT compute them, and the two are compared on the same reviews, since kernels must not change the
quality. A run that was stopped is gone on with; one that is finished is not done again. Writes
benchmarks/results/quickstart.json.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any

from measured import keep

from hanse.evaluation.metrics.confidence import paired, student
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.journal.round_costs import training_seconds
from hanse.simulation import run as simulation

ROOT = Path(__file__).parent.parent
LONGER = "train.num_train_epochs=0.03"
QUICKSTART = ROOT / "experiments" / "quickstart.yaml"


PLAIN = "model.products=plain"
TASK = "test-classification"


def finished(seed: int, reviews: int, extra: list[str], name: str = "") -> Path:
    """The folder of one seed's run, run or resumed as needed."""
    folder = ROOT / "runs" / f"benchmark-quickstart-{reviews}-{seed}{name}"
    words = [f"seed={seed}", f"data.test={reviews}", f"output_dir={folder}", LONGER, *extra]
    if not folder.exists():
        return simulation.run(load(QUICKSTART, words))
    if not (folder / "report.html").exists():
        return simulation.resume(folder)
    return folder


def beside_plain(seed: int, reviews: int, extra: list[str]) -> dict[str, Any]:
    """How far a seed's run is ahead of the same with plain products, on the same reviews."""
    names = {"": extra, "-plain": [PLAIN, *extra]}
    both = []
    for name, settings in names.items():
        folder = finished(seed, reviews, settings, name)
        last = run_folder.read_rounds(folder)[-1].round
        both.append(run_folder.read_evaluation(folder, TASK, last))
    ahead = paired(both[0].items, both[1].items)
    assert ahead is not None  # there are two reviews or more
    return {
        "seed": seed,
        "plain": both[1].metrics,
        "ahead": [ahead.value, ahead.low, ahead.high],
    }


def main() -> None:
    """Run all seeds, print a line for each, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--reviews", type=int, default=2000)
    parser.add_argument("settings", nargs="*", help="settings to change, such as rounds=4")
    chosen = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    rows = []
    for seed in chosen.seeds:
        folder = finished(seed, chosen.reviews, chosen.settings)
        records = run_folder.read_rounds(folder)
        before = run_folder.read_evaluation(folder, TASK, 0)
        after = run_folder.read_evaluation(folder, TASK, records[-1].round)
        gain = paired(after.items, before.items)
        assert gain is not None  # there are two reviews or more
        row = {
            "seed": seed,
            "base": before.metrics,
            "federated": after.metrics,
            "gain": gain.value,
            "interval": [gain.low, gain.high],
            "megabytes": sum(r.bytes.total for r in records) / 1e6,
            "training_seconds": sum(training_seconds(r.seconds) for r in records),
            "wall_seconds": records[-1].time - records[0].time,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    gains = [row["gain"] for row in rows]
    result = {"reviews": chosen.reviews, "seeds": rows, "mean_gain": statistics.mean(gains)}
    if spread := student(gains):
        result["mean_gain_interval"] = [spread.low, spread.high]
    result["beside_plain"] = beside_plain(chosen.seeds[0], chosen.reviews, chosen.settings)
    print(keep("quickstart", result))


if __name__ == "__main__":
    main()
