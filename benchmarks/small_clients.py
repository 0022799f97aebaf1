"""Many small clients: `hanse run` beside a plain loop of PyTorch and PEFT, whole commands.

16 clients train a random Llama of 6 layers, 256 wide, for 5 rounds of 4 steps of 4 rows by 48
tokens, with LoRA of rank 8 on every linear layer. With so little to compute, starting up, messages
and small operations are much of the cost. Every process counts, from start to result. `peers/loop`
says what the plain loop does; hanse runs as it comes, and in the loop's float32.

Gate: as it comes, at most 0.75 of the loop's CPU seconds. Writes
benchmarks/results/small_clients.json.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import local_model
from measured import ROOT, keep
from process_tree import Cost, measure

LOOP = ROOT / "benchmarks" / "peers" / "loop" / "loop.py"
WORDS = ("film", "actor", "plot", "scene", "story", "music", "camera", "ending", "long", "short")
JOB = {
    "clients": 16,
    "rounds": 5,
    "steps": 4,
    "batch": 4,
    "tokens": 48,
    "learning_rate": 1e-3,
    "test": 200,
    "validation": 200,
    "client_test": 10,  # rows of each client
}
ROWS = 2000
GATE = 0.75
Way = Callable[[Path], tuple[Cost, int]]  # empty folder → cost, tokens trained on


def prepare(home: Path) -> dict[str, Any]:
    """Write the model, the rows and the job; the job."""
    local_model.write(home / "model", WORDS, layers=6, width=256, heads=8)
    draw = random.Random(0)
    lines = [json.dumps({"text": " ".join(draw.choices(WORDS, k=60))}) for _ in range(ROWS)]
    (home / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**JOB, "model": str(home / "model"), "rows": str(home / "rows.jsonl")}


def loop(job: dict[str, Any], folder: Path) -> tuple[Cost, int]:
    """The job by the plain loop."""
    (folder / "job.json").write_text(json.dumps(job))
    cost = measure([sys.executable, str(LOOP), str(folder)], os.environ, folder / "log")
    return cost, json.loads((folder / "done.json").read_text())["tokens"]


def hanse(job: dict[str, Any], words: tuple[str, ...], folder: Path) -> tuple[Cost, int]:
    """The job by `hanse run`, with no tokens kept from before."""
    experiment = {
        "rounds": job["rounds"],
        "num_clients": job["clients"],
        "output_dir": str(folder / "run"),
        "model": {
            "model_name_or_path": job["model"],
            "max_length": job["tokens"],
            "long_texts": "cut",  # as the loop does
        },
        "adapter": {"lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}},
        "data": {
            "path": job["rows"],
            "test": job["test"],
            "validation": job["validation"],
            "client_test": job["client_test"]
            * job["clients"]
            / (ROWS - job["test"] - job["validation"]),
        },
        "train": {
            "learning_rate": job["learning_rate"],
            "max_steps": job["steps"],
            "per_device_train_batch_size": job["batch"],
        },
    }
    (folder / "experiment.yaml").write_text(json.dumps(experiment))  # which is YAML, too
    command = [sys.executable, "-m", "hanse", "run", str(folder / "experiment.yaml"), *words]
    cost = measure(command, {**os.environ, "HANSE_CACHE": str(folder / "cache")}, folder / "log")
    ledger = [json.loads(line) for line in (folder / "run/ledger.jsonl").read_text().splitlines()]
    return cost, int(sum(line["tokens"] for line in ledger if line["kind"] == "train"))


def compare(job: dict[str, Any], repeats: int) -> dict[str, list[dict[str, float]]]:
    """What each way costs, repeat by repeat, taking turns."""
    ways: dict[str, Way] = {
        "loop": partial(loop, job),
        "hanse": partial(hanse, job, ()),
        "hanse in float32": partial(hanse, job, ("model.bf16=false",)),
    }
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for repeat in range(1, repeats + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="hanse-small-") as folder:
                cost, tokens = way(Path(folder))
            if (
                tokens
                != job["clients"] * job["rounds"] * job["steps"] * job["batch"] * job["tokens"]
            ):
                raise RuntimeError(f"{name} trained on {tokens} tokens, which is another job")
            samples[name].append(asdict(cost))
            print(f"{repeat} of {repeats}: {name}: {cost}", flush=True)
    return samples


def main() -> None:
    """Measure, print the ratios, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="once; a minute")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hanse-small-") as home:
        job = prepare(Path(home))
        samples = compare(job, 1 if chosen.short else chosen.repeats)
    over = {
        name: {
            kind: statistics.median(
                mine[kind] / theirs[kind] for mine, theirs in zip(own, samples["loop"], strict=True)
            )
            for kind in ("cpu_seconds", "seconds", "peak_bytes")
        }
        for name, own in samples.items()
    }
    for name, ratios in over.items():
        print(f"{name} ÷ the loop: {ratios}")
    print(f"gate: CPU seconds as it comes {over['hanse']['cpu_seconds']:.2f}, at most {GATE}")
    print(keep("small_clients", {"job": JOB, "samples": samples, "over_loop": over}))


if __name__ == "__main__":
    main()
