"""`hanse run` beside Flower's simulation: whole commands, from start to result.

flower            as flower_peer.py says
hanse             as it comes, with `clients_per_pass: auto`; it measures which precision
hanse in float32  the same in Flower's precision, in the first repeat only

Each runs with one round and with three: half of the difference of the medians is what a further
round costs without start-up. Start-up is what a user waits for: libraries, the model, for hanse
also reading and dividing the reviews, measuring, and the report. Every process counts.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flower_peer import SILENT, prepare, simulated
from overhead import QUICKSTART
from process_tree import Cost, measure

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load

FLOAT32 = "model.bf16=false"
ONCE = "hanse in float32"
KINDS = ("cpu_seconds", "seconds")  # of cost
Way = Callable[[Path, int], tuple[Cost, int]]  # empty folder, rounds → cost, tokens trained on
Samples = dict[int, list[dict[str, float]]]  # of one way, by the number of rounds


def compare(words: Sequence[str], repeats: int, rounds: Sequence[int]) -> dict[str, Any]:
    """What all ways cost, taking turns, with ratios; raises UnavailableError without Flower.

    words: the job, as changes of the demo.
    """
    versions = prepare()
    simulation = simulate(load(QUICKSTART, [*words, FLOAT32]))
    ways: dict[str, Way] = {
        "flower": partial(simulated, simulation),
        "hanse": partial(hanse, words),
        ONCE: partial(hanse, [*words, FLOAT32]),
    }
    samples: dict[str, Samples] = {name: {number: [] for number in rounds} for name in ways}
    for repeat in range(1, repeats + 1):
        for name, way in ways.items():
            for number in rounds if repeat == 1 or name != ONCE else ():
                with tempfile.TemporaryDirectory() as folder:
                    cost, tokens = way(Path(folder), number)
                samples[name][number].append({**asdict(cost), "tokens": tokens})
                print(f"whole {repeat} of {repeats}: {name}, {told(cost, number)}", flush=True)
    return {
        "versions": versions,
        "samples": samples,
        "over_flower": {name: over(own, samples["flower"]) for name, own in samples.items()},
    }


def hanse(words: Sequence[str], folder: Path, rounds: int) -> tuple[Cost, int]:
    """The job by `hanse run`."""
    run = folder / "run"
    own = [*words, "clients_per_pass=auto", f"rounds={rounds}", f"output_dir={run}"]
    command = [sys.executable, "-m", "hanse", "run", str(QUICKSTART), *own]
    cost = measure(command, {**os.environ, **SILENT}, folder / "log")
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    return cost, int(sum(line["tokens"] for line in ledger if line["kind"] == "train"))


def over(own: Samples, flower: Samples) -> dict[str, dict[str, float]]:
    """A way's costs ÷ Flower's: of the command with fewest rounds, and of a further round."""
    fewest = min(own)
    pairs = list(zip(own[fewest], flower[fewest], strict=False))  # those of the same repeat
    found = {
        "whole": {
            kind: statistics.median(mine[kind] / theirs[kind] for mine, theirs in pairs)
            for kind in (*KINDS, "peak_bytes")
        }
    }
    if len(own) > 1:
        rest = {kind: further(own, kind) / further(flower, kind) for kind in KINDS}
        found["further_round"] = rest
    return found


def further(samples: Samples, kind: str) -> float:
    """What a further round costs; the difference of two single runs would be mostly noise."""
    fewest, most = min(samples), max(samples)
    less, more = (
        statistics.median(sample[kind] for sample in samples[number]) for number in (fewest, most)
    )
    return (more - less) / (most - fewest)


def told(cost: Cost, rounds: int) -> str:
    """A cost in words."""
    return (
        f"{rounds} round{'s' if rounds > 1 else ''} in {cost.cpu_seconds:.1f} CPU seconds, "
        f"{cost.seconds:.1f} seconds, {cost.peak_bytes / 1e9:.2f} GB"
    )
